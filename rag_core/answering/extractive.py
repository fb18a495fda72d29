"""Answer a question with sentences quoted from search hits, each cited, or say that the documents do not answer it.

Candidates come from `sentences`, are scored by the question's terms and, where an embedder is given, by similarity,
and are chosen by maximal marginal relevance. Searching is not done here: hits come in, an answer goes out, the same
for the same input.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from rag_core.answering.ranking import Candidate, choose, coverage, jaccard, relevance_of, supported, with_lists
from rag_core.answering.sentences import MAX_CHARS, Unit, units
from rag_core.answering.terms import asks_number, question_terms, terms

Embed = Callable[[list[str]], NDArray[np.floating]]
"""Texts to (n, dim) vectors of unit length, questions and passages alike."""

NOT_FOUND: Final = "The documents found do not answer this question."


class Hit(Protocol):
    """What an answer needs of a search hit; the order of hits counts, the size of their scores does not."""

    @property
    def chunk_id(self) -> str: ...  # noqa: D102
    @property
    def doc_id(self) -> str: ...  # noqa: D102
    @property
    def uri(self) -> str: ...  # noqa: D102
    @property
    def title(self) -> str | None: ...  # noqa: D102
    @property
    def text(self) -> str: ...  # noqa: D102
    @property
    def page(self) -> int | None: ...  # noqa: D102
    @property
    def heading_path(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def char_start(self) -> int: ...  # noqa: D102
    @property
    def score(self) -> float: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class QuotedSentence:
    """One quotation.

    Attributes:
        text: Exactly the document's text at the span, Markdown and line breaks included.
        plain: The same without Markdown, on one line; this is what the answer shows.
        citation: Number of the citation it comes from.
        span: First character, inclusive, and last, exclusive, in the document's text.
        score: Relevance, 0 and up; comparable within one answer only.
    """

    text: str
    plain: str
    citation: int
    span: tuple[int, int]
    score: float


@dataclass(frozen=True, slots=True)
class Citation:
    """A chunk that is quoted; `span` reaches from its first quoted character to its last, exclusive."""

    number: int
    chunk_id: str
    doc_id: str
    uri: str
    title: str | None
    page: int | None
    heading_path: tuple[str, ...]
    span: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer: `text` shows the sentences in order with markers such as [1]; `found` is False when there is none."""

    text: str
    sentences: tuple[QuotedSentence, ...]
    citations: tuple[Citation, ...]
    found: bool


def answer(
    question: str,
    hits: Sequence[Hit],
    *,
    max_sentences: int = 4,
    embed: Embed | None = None,
    min_similarity: float = 0.48,
) -> Answer:
    """Answer from the hits.

    Args:
        question: As a person asks it.
        hits: Best first.
        max_sentences: Upper bound; fewer are quoted when further ones are much weaker than the best.
        embed: Adds similarity to the scores, and makes both the choice and the refusal much better.
        min_similarity: Cosine from which a sentence supports an answer (see `supported`). The default fits
            all-MiniLM-L6-v2; models of the e5 kind put unrelated texts above 0.7 and need their own.

    Returns:
        The answer; chunks in order of their best sentence, sentences of a chunk in document order. Not found when no
        candidate is close enough to the question.

    Raises:
        ValueError: max_sentences is below 1.
    """
    if max_sentences < 1:
        raise ValueError(f"max_sentences is {max_sentences}; expected at least 1")
    draft = draft_of(question, hits)
    vectors = embed(draft.texts) if embed and draft.candidates else None
    return concluded(draft, vectors, max_sentences=max_sentences, min_similarity=min_similarity)


@dataclass(frozen=True, slots=True)
class Draft:
    """The sentences that an answer may quote, before anything is embedded.

    Attributes:
        question: As a person asks it.
        hits: Best first.
        candidates: At most `_EMBED_LIMIT`; none if nothing is asked or nothing was found.
        covered: (n,) share of the question's terms that each candidate holds.
    """

    question: str
    hits: Sequence[Hit]
    candidates: Sequence[Candidate]
    covered: NDArray[np.float64]

    @property
    def texts(self) -> list[str]:
        """What is to be embedded: the question, then each candidate."""
        return [self.question, *(candidate.embedded for candidate in self.candidates)]


def draft_of(question: str, hits: Sequence[Hit]) -> Draft:
    """Collect what may be quoted: the first half of `answer`, for callers that embed by themselves."""
    asked = question_terms(question)
    candidates = _candidates(hits) if asked else []
    if not candidates:
        return Draft(question, hits, (), np.empty(0))
    covered = coverage(asked, candidates)
    kept = np.sort(np.argsort(-covered, kind="stable")[:_EMBED_LIMIT])
    return Draft(question, hits, [candidates[at] for at in kept], covered[kept])


def concluded(
    draft: Draft, vectors: NDArray[np.floating] | None, *, max_sentences: int = 4, min_similarity: float = 0.48
) -> Answer:
    """Choose and cite: the second half of `answer`; `vectors` are of `draft.texts`, or None."""
    candidates, covered = draft.candidates, draft.covered
    if not candidates:
        return Answer(NOT_FOUND, (), (), found=False)
    similar = np.clip(vectors[1:] @ vectors[0], 0, 1).astype(np.float64) if vectors is not None else None
    if not supported(covered, similar, min_similarity):
        return Answer(NOT_FOUND, (), (), found=False)
    number_wanted = asks_number(draft.question)
    relevance = relevance_of(candidates, covered, similar, hits=len(draft.hits), number_wanted=number_wanted)
    alike = vectors[1:] @ vectors[1:].T if vectors is not None else jaccard([c.own for c in candidates])
    chosen = with_lists(choose(relevance, alike, max_sentences), candidates, max_sentences)
    return _assemble([(candidates[at], float(relevance[at])) for at in chosen], draft.hits)


_EMBED_LIMIT: Final = 64  # sentences that are embedded: the rest share too little with the question to be chosen


def _candidates(hits: Sequence[Hit]) -> list[Candidate]:
    """Collect the units of all hits; a text that occurs again, in an overlap or a copy, is kept at its best rank."""
    found: dict[str, Candidate] = {}
    for rank, hit in enumerate(hits):
        headings = " ".join(dict.fromkeys([hit.title or "", *hit.heading_path]))
        for unit in units(hit.text):
            if unit.plain in found or len(unit.plain) > 2 * MAX_CHARS:
                continue
            found[unit.plain] = Candidate(
                rank, unit, terms(unit.plain), terms(f"{headings} {unit.context}"), embedded_text(hit, unit)
            )
    return list(found.values())


def embedded_text(hit: Hit, unit: Unit) -> str:
    """Return what is embedded for a sentence: its section and itself; alone, many a sentence says too little."""
    section = unit.context or (hit.heading_path[-1] if hit.heading_path else hit.title or "")
    return f"{section}: {unit.plain}"


def _assemble(chosen: Iterable[tuple[Candidate, float]], hits: Sequence[Hit]) -> Answer:
    by_rank: dict[int, list[tuple[Candidate, float]]] = {}
    for candidate, score in chosen:
        by_rank.setdefault(candidate.rank, []).append((candidate, score))
    sentences: list[QuotedSentence] = []
    citations: list[Citation] = []
    for number, (rank, group) in enumerate(by_rank.items(), start=1):
        hit = hits[rank]
        quoted = [_quote(hit, candidate, number, score) for candidate, score in group]
        quoted.sort(key=lambda sentence: sentence.span)
        span = (quoted[0].span[0], max(sentence.span[1] for sentence in quoted))
        citations.append(
            Citation(number, hit.chunk_id, hit.doc_id, hit.uri, hit.title, hit.page, tuple(hit.heading_path), span)
        )
        sentences += quoted
    text = " ".join(f"{sentence.plain} [{sentence.citation}]" for sentence in sentences)
    return Answer(text, tuple(sentences), tuple(citations), found=True)


def _quote(hit: Hit, candidate: Candidate, number: int, score: float) -> QuotedSentence:
    start, end = candidate.unit.start, candidate.unit.end
    span = (hit.char_start + start, hit.char_start + end)
    return QuotedSentence(hit.text[start:end], candidate.unit.plain, number, span, score)
