"""What of a ranking is read: no text twice, each hit with what stands around it, and no more than a budget. Pure."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rag_core.retrieval.search import Hit

_WORD: Final = re.compile(r"\w+")
_MAX_GAP: Final = 4  # what is cut off between two chunks is white space; more than that was left out by the chunker


def estimated_tokens(text: str) -> int:
    """Estimate the tokens of a text: English has some 1.3 a word and 4 characters each; the larger counts."""
    return max(round(1.3 * len(_WORD.findall(text))), len(text) // 4)


def distinct(hits: Iterable[Hit], *, similarity: float, most: int) -> list[Hit]:
    """Leave out hits whose words are nearly those of a better one.

    Args:
        hits: Best first.
        similarity: Jaccard similarity of the sets of words from which two count as one.
        most: Hits to return.
    """
    kept: list[Hit] = []
    words: list[frozenset[str]] = []
    for hit in hits:
        if len(kept) == most:
            break
        own = frozenset(_WORD.findall(hit.text.casefold()))
        if not any(_is_like(own, other, similarity) for other in words):
            kept.append(hit)
            words.append(own)
    return kept


def _is_like(a: frozenset[str], b: frozenset[str], similarity: float) -> bool:
    # The smaller over the larger bounds the similarity, and is known without comparing the words.
    smaller, larger = sorted((len(a), len(b)))
    return smaller >= similarity * larger and len(a & b) >= similarity * len(a | b)


@dataclass(frozen=True, slots=True)
class Stretch:
    """A piece of a document: its text, and its span in the document's text."""

    text: str
    span: tuple[int, int]


def wanted_around(hits: Sequence[Hit], neighbours: int) -> Iterator[tuple[str, int, int]]:
    """Yield document, first and last ordinal of what has to be read to widen the hits."""
    for hit in hits:
        yield hit.doc_id, max(0, hit.ordinal - neighbours), hit.ordinal + neighbours


def widened(hits: Sequence[Hit], around: Mapping[tuple[str, int], Hit], neighbours: int) -> list[Stretch]:
    """Join each hit with its neighbours, better hits first; no chunk comes twice, and none of a stretch's characters.

    Args:
        hits: Best first.
        around: (doc_id, ordinal) -> chunk, of all that may be read.
        neighbours: How many before and after.

    Returns:
        One stretch for each hit, in order. Characters between two chunks, which are white space, count in the span.
    """
    taken = {(hit.doc_id, hit.ordinal) for hit in hits}
    return [_widened(hit, around, neighbours, taken) for hit in hits]


def _widened(hit: Hit, around: Mapping[tuple[str, int], Hit], neighbours: int, taken: set[tuple[str, int]]) -> Stretch:
    text, start, end = hit.text, hit.char_start, hit.char_end
    for step in (-1, 1):
        for distance in range(1, neighbours + 1):
            place = (hit.doc_id, hit.ordinal + step * distance)
            other = around.get(place)
            if other is None or place in taken:
                break
            gap = start - other.char_end if step < 0 else other.char_start - end
            if gap > _MAX_GAP or not (other.char_start < start if step < 0 else other.char_end > end):
                break
            taken.add(place)
            between = " " if gap == 1 else "\n" * max(gap, 0)
            if step < 0:
                text, start = other.text[: start - other.char_start] + between + text, other.char_start
            else:
                text, end = text + between + other.text[max(0, end - other.char_start) :], other.char_end
    return Stretch(text, (start, end))


def within_budget(stretches: Sequence[Stretch], tokens: int | None) -> int:
    """Return how many of the stretches fit, at least one; whatever is behind one that does not fit is left out."""
    if tokens is None:
        return len(stretches)
    spent = 0
    for number, stretch in enumerate(stretches):
        spent += estimated_tokens(stretch.text)
        if spent > tokens and number:
            return number
    return len(stretches)
