"""A search as the service knows it: the question, what it is restricted to, and what was found."""

import re
from dataclasses import dataclass, field, replace
from typing import Any

from rag_core import ids
from rag_core.retrieval.filters import SearchFilters
from rag_core.retrieval.ranking import Mode
from rag_core.retrieval.search import Hit


@dataclass(frozen=True, slots=True)
class Query:
    """What is searched for.

    Attributes:
        text: The question, normalised by `normalised`.
        mode: dense, bm25 or hybrid.
        top_k: Most hits.
        filters: Restrictions, the caller's access labels among them (None only for a caller who sees all).
        rerank: Whether to rerank, where a model is configured.
        neighbours: Chunks before and after each hit that are joined to its passage.
        passage_tokens: Bound of the tokens of all passages together; None: no bound.
        explain: Whether to say how each hit got its place.
    """

    text: str
    mode: Mode = "hybrid"
    top_k: int = 10
    filters: SearchFilters = field(default_factory=SearchFilters)
    rerank: bool = False
    neighbours: int = 0
    passage_tokens: int | None = None
    explain: bool = False

    @property
    def key(self) -> str:
        """Digest of all that the result depends on, except for the index: the labels of the caller are a part of it."""
        f = self.filters
        return ids.fingerprint(
            {
                "text": self.text.casefold(),
                "mode": self.mode,
                "top_k": self.top_k,
                "rerank": self.rerank,
                "neighbours": self.neighbours,
                "passage_tokens": self.passage_tokens,
                "explain": self.explain,
                "filters": [
                    _sorted(f.sources), _sorted(f.mimes), _sorted(f.languages), _sorted(f.access_labels),
                    _sorted(f.doc_ids), _sorted(f.partition_keys), str(f.modified_after), str(f.modified_before),
                    f.expression,
                ],
            }
        )  # fmt: skip

    def with_labels(self, labels: tuple[str, ...] | None) -> "Query":
        """Return the query restricted to the labels that a caller may see."""
        return replace(self, filters=replace(self.filters, access_labels=labels))


@dataclass(frozen=True, slots=True)
class Passage:
    """A hit as it is read: with what stands around it.

    Attributes:
        hit: The chunk that was found.
        text: Its text, with that of its neighbours where they were asked for.
        span: First character of `text` in the document, inclusive, and last, exclusive.
        tokens: Of `text`, estimated.
        explain: How it got its place: ranks and scores by field, rerank score, weights; empty unless asked for.
    """

    hit: Hit
    text: str
    span: tuple[int, int]
    tokens: int
    explain: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found: passages, best first, and how it was made.

    Attributes:
        passages: Best first.
        collection: The one collection that all of them are from.
        version: Version of what was searched, as `Snapshot.version_for` gave it.
        effort: Weights and search parameters that were used.
        seconds: Stage -> time.
        stale: Whether it is an older result, given out because Milvus does not answer.
        cached: Whether no search was made for it.
    """

    passages: tuple[Passage, ...]
    collection: str
    version: str
    effort: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    stale: bool = False
    cached: bool = False

    @property
    def doc_ids(self) -> list[str]:
        """The documents of the passages, each once."""
        return list(dict.fromkeys(passage.hit.doc_id for passage in self.passages))


def normalised(text: str) -> str:
    """Return a question with white space made one, control characters removed and the ends trimmed."""
    return re.sub(r"\s+", " ", re.sub(r"[\x00-\x08\x0e-\x1f\x7f]", "", text)).strip()


def _sorted(values: Any) -> list[str] | None:
    return None if values is None else sorted(values)
