"""Known-item queries for collections without labels: a sentence of a document asks for that document.

They are generated from texts by hash order, so every index over the same documents is asked the same. What they can
show is that a stored text is found again: a broken index, model or mapping of vectors. How well real questions are
answered they cannot show, for a question seldom repeats a sentence.

Source of the method: Azzopardi, de Rijke, Balog 2007, "Building Simulated Queries for Known-Item Topics", SIGIR.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from rag_core import ids
from rag_core.answering.sentences import units
from rag_core.tables.delta import TableSlice, in_set

_MIN_CHARS: Final = 40
_MAX_CHARS: Final = 300
_MIN_WORDS: Final = 6
_MIN_DENSE: Final = 12  # characters of scripts without spaces, in place of the two above
_MIN_LETTERS: Final = 0.7  # of the characters: below are formulas, addresses, rows of figures
_READ_CHARS: Final = 100_000  # of a document: the beginning of a long one is as good as all of it
_SPARE: Final = 3  # documents looked at for each that is wanted: many have no sentence that serves
_PER_DOCUMENT: Final = 4  # sentences kept until it is known which are unique
_BATCH_ROWS: Final = 256

_END = re.compile(r"[.!…。！][\"'”’)\]]*$")
_WORD = re.compile(r"[^\W\d_]{2,}")
_CJK = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")  # Thai, kana, han, hangul
_LINK = re.compile(r"https?://|www\.|\S@\S+\.\w")
_BOILERPLATE = re.compile(
    r"\b(?:cookies?|copyright|all rights reserved|privacy policy|terms of (?:use|service)|unsubscribe|subscribe|"
    r"click here|read more|sign (?:in|up)|log in|last (?:updated|modified)|table of contents|confidentiality notice|"
    r"intended (?:solely|only) for|without warrant(?:y|ies)|licen[sc]ed under)\b|©",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class KnownItem:
    """A question and the one document that it was taken from.

    Attributes:
        query_id: Digest of document and sentence.
        question: The sentence, without Markdown.
        doc_id: Its document.
        sentence: The sentence as it stands in the document.
    """

    query_id: str
    question: str
    doc_id: str
    sentence: str


def known_items(documents: TableSlice, count: int, *, sources: Sequence[str] | None = None) -> list[KnownItem]:
    """Generate known-item queries, one for a document at most.

    Documents are taken in the order of a digest of their id, and of each the sentence with the lowest digest: an
    unchanged document keeps its question whatever happens to the others, unless its sentence gets into one of them.
    Left out are headings, code, tables, short and long sentences, boilerplate, and what a second document has as well
    (white space and case apart). All texts are read once, in batches.

    Args:
        documents: The table, or some partitions of it.
        count: Questions wanted; fewer where there are not as many documents with a sentence that serves.
        sources: Whose documents are asked for; None for all. Sentences must be unique among all documents anyway.

    Returns:
        Known items in the order of the digest.
    """
    if count < 1 or (sources is not None and not sources):
        return []
    candidates = _candidates(documents, _in_order(documents, sources)[: _SPARE * count])
    repeated = _repeated(documents, [item for items in candidates for item in items])
    unique = (next((item for item in items if item.query_id not in repeated), None) for items in candidates)
    return [item for item in unique if item is not None][:count]


def sentences(text: str) -> Iterator[tuple[str, str]]:
    """Yield the sentences that can be a question: as they read, and as they stand in the text."""
    text = text[:_READ_CHARS]
    for unit in units(text):
        if unit.kind == "sentence" and is_telling(unit.plain):
            yield unit.plain, text[unit.start : unit.end]


def is_telling(sentence: str) -> bool:
    """Whether a sentence is of a length to be a question, is prose, and is none of the usual boilerplate."""
    letters = sum(character.isalpha() or character.isspace() for character in sentence)
    words = len(_WORD.findall(sentence))
    dense = len(_CJK.findall(sentence))
    return (
        len(sentence) <= _MAX_CHARS
        and ((len(sentence) >= _MIN_CHARS and words >= _MIN_WORDS) or dense >= _MIN_DENSE)
        and letters >= _MIN_LETTERS * len(sentence)
        and sentence.count("(") == sentence.count(")")  # else the beginning or the end is missing
        and _END.search(sentence) is not None
        and not _LINK.search(sentence)
        and not _BOILERPLATE.search(sentence)
    )


def _in_order(documents: TableSlice, sources: Sequence[str] | None) -> list[str]:
    """Order the documents that have a text by digest; of texts that occur twice, none."""
    table = documents.read(["doc_id", "source", "text_hash"], pc.field("status") == "ok")
    times = table.group_by("text_hash").aggregate([([], "count_all")])
    single = times.filter(pc.equal(times["count_all"], 1))["text_hash"].combine_chunks()
    wanted = pc.is_in(table["text_hash"], single)
    if sources is not None:
        wanted = pc.and_(wanted, pc.is_in(table["source"], pa.array(list(sources), pa.string())))
    return sorted(table.filter(wanted)["doc_id"].to_pylist(), key=lambda doc_id: ids.digest("known_item", doc_id))


def _candidates(documents: TableSlice, doc_ids: Sequence[str]) -> list[list[KnownItem]]:
    """Return for each document some of its sentences, in the order of their digests."""
    found: dict[str, list[KnownItem]] = {}
    for batch in documents.batches(["doc_id", "text"], in_set("doc_id", doc_ids), batch_rows=_BATCH_ROWS):
        for doc_id, text in zip(batch["doc_id"].to_pylist(), batch["text"].to_pylist(), strict=True):
            items = (KnownItem(ids.digest(doc_id, plain), plain, doc_id, raw) for plain, raw in sentences(text))
            unique = {item.query_id: item for item in items}
            found[doc_id] = [unique[name] for name in sorted(unique)[:_PER_DOCUMENT]]
    return [found.get(doc_id, []) for doc_id in doc_ids]


def _repeated(documents: TableSlice, items: Iterable[KnownItem]) -> set[str]:
    """Return the query ids of sentences that another document has as well."""
    by_word: dict[str, list[tuple[str, KnownItem]]] = defaultdict(list)
    for item in items:
        words = item.sentence.casefold().split()
        # A document without the sentence's longest word need not be searched for it. The first and last word do not
        # count: they may stand there together with a mark of Markdown.
        by_word[max(words[1:-1] or words, key=len)].append((" ".join(words), item))
    repeated: set[str] = set()
    for batch in documents.batches(["doc_id", "text"], pc.field("status") == "ok", batch_rows=_BATCH_ROWS):
        for doc_id, text in zip(batch["doc_id"].to_pylist(), batch["text"].to_pylist(), strict=True):
            repeated.update(_found_in(doc_id, text.casefold().split(), by_word))
    return repeated


def _found_in(doc_id: str, words: Sequence[str], by_word: Mapping[str, list[tuple[str, KnownItem]]]) -> Iterator[str]:
    text = ""
    for word in by_word.keys() & set(words):
        text = text or " ".join(words)
        for sentence, item in by_word[word]:
            if item.doc_id != doc_id and sentence in text:
                yield item.query_id
