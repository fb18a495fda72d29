"""Two collections side by side on the same questions: common results, latency, counts."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rag_core import ids
from rag_core.evaluation.leaks import Leaks, find_leaks
from rag_core.evaluation.query_sets import QuerySet
from rag_core.evaluation.target import SearchTarget
from rag_core.index.client import IndexClient
from rag_core.retrieval.filters import SearchFilters
from rag_core.retrieval.ranking import Mode, modes_of
from rag_core.tables.delta import TableSlice
from rag_core.tables.store import Store

K: Final = 10
_MAX_QUESTIONS: Final = 100
_WARM_UP: Final = 3
_PERSISTENCE: Final = 0.9  # the first 10 ranks carry 86 % of the weight


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two rankings of documents agree, over all questions, in one mode.

    Attributes:
        overlap_at_10: Mean share of common documents among the first 10.
        rank_biased_overlap: Mean agreement with the first ranks weighing most, 0 to 1.
    """

    overlap_at_10: float
    rank_biased_overlap: float


@dataclass(frozen=True, slots=True)
class Latency:
    """Time of a search of 10 documents, embedding excluded, in milliseconds."""

    p50_ms: float
    p95_ms: float


@dataclass(frozen=True, slots=True)
class SourceCounts:
    """What the ledger says a collection holds of one source."""

    documents: int
    chunks: int


@dataclass(frozen=True)
class Side:
    """One of the two collections.

    Attributes:
        collection: Its name.
        latency: By mode.
        counts: By source.
        leaks: What its filter by access label let through.
    """

    collection: str
    latency: dict[str, Latency]
    counts: dict[str, SourceCounts]
    leaks: Leaks


@dataclass(frozen=True)
class Comparison:
    """Old against new.

    Attributes:
        questions: How many both were asked in each mode.
        agreement: By mode.
        old: The served collection.
        new: The one that is to take its place.
    """

    questions: int
    agreement: dict[str, Agreement]
    old: Side
    new: Side

    @property
    def leaked(self) -> int:
        """Rows that the new collection showed to those who may not see them; must be 0."""
        return self.new.leaks.leaked

    def latency_ratio(self, mode: Mode = "hybrid") -> float:
        """Return the new collection's p95 latency divided by the old one's."""
        return self.new.latency[mode].p95_ms / self.old.latency[mode].p95_ms

    def to_dict(self) -> dict[str, Any]:
        """Return all figures, JSON-able."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Comparison":
        """Return what `to_dict` was given."""
        return cls(
            questions=values["questions"],
            agreement={mode: Agreement(**figures) for mode, figures in values["agreement"].items()},
            old=_side(values["old"]),
            new=_side(values["new"]),
        )


def compare(
    client: IndexClient,
    store: Store,
    old: SearchTarget,
    new: SearchTarget,
    query_sets: Sequence[QuerySet],
    *,
    modes: Sequence[Mode] | None = None,
    max_questions: int = _MAX_QUESTIONS,
) -> Comparison:
    """Ask two collections the same questions and compare what they give.

    Each question goes to one collection and at once to the other, in turns first to the old and first to the new, so
    that what else the machine does falls on both alike. Some questions go ahead uncounted.

    Args:
        client: Connected to the Milvus that holds both.
        store: Holds the documents and the ledger.
        old: The served collection.
        new: The other. The same one twice is allowed: agreement is then 1.
        query_sets: Where questions are taken from, by digest, in equal parts.
        modes: Modes of search; default: those that both have.
        max_questions: Questions asked in each mode.

    Raises:
        ValueError: There is no question.
        TransientError: The server is unreachable or too slow.
    """
    asked = _questions(query_sets, max_questions)
    if not asked:
        raise ValueError("no question to compare two collections with")
    texts = [text for text, _ in asked]
    vectors = (old.embed(texts), new.embed(texts))
    by_mode: dict[str, _Both] = {
        mode: _rank_both(client, (old, new), asked, vectors, mode)
        for mode in modes or modes_of(client, old.collection, new.collection)
    }
    sides = [
        Side(
            collection=target.collection,
            latency={mode: _latency([pair[place] for pair in times]) for mode, (_, times) in by_mode.items()},
            counts=_counts(store, target.collection),
            leaks=find_leaks(client, store, target, texts),
        )
        for place, target in enumerate((old, new))
    ]
    agreement = {mode: _agreement(rankings) for mode, (rankings, _) in by_mode.items()}
    return Comparison(questions=len(asked), agreement=agreement, old=sides[0], new=sides[1])


def overlap(old: Sequence[str], new: Sequence[str], k: int = K) -> float:
    """Share of common documents among the first k; of the longer ranking where both are shorter. Two empty ones: 1."""
    first, second = set(old[:k]), set(new[:k])
    longer = max(len(first), len(second))
    return len(first & second) / longer if longer else 1.0


def rank_biased_overlap(old: Sequence[str], new: Sequence[str], *, p: float = _PERSISTENCE) -> float:
    """Rank-biased overlap, extrapolated from the ranks that are known.

    Source: Webber, Moffat, Zobel 2010, "A Similarity Measure for Indefinite Rankings", ACM TOIS 28(4), equation 23
        (RBO_EXT of two rankings of one length; a shorter one counts as if nothing more of it agreed).

    Args:
        old: Distinct documents, best first.
        new: The same of the other system.
        p: Persistence: weight of a rank relative to the one before, 0 to 1.
    """
    depth = max(len(old), len(new))
    if not depth:
        return 1.0
    agreements = [len(set(old[:rank]) & set(new[:rank])) / rank for rank in range(1, depth + 1)]
    weighed = sum(agreement * p**rank for rank, agreement in enumerate(agreements, start=1))
    return (1 - p) / p * weighed + agreements[-1] * p**depth


_Asked = tuple[str, SearchFilters | None]
_Both = tuple[list[tuple[list[str], list[str]]], list[tuple[float, float]]]


def _questions(query_sets: Sequence[QuerySet], most: int) -> list[_Asked]:
    """Take questions of all sets in turns, each set's in the order of a digest."""
    found: list[_Asked] = []
    for queries in query_sets:
        share = -(-most // len(query_sets))
        texts = sorted(queries.queries.values(), key=lambda text: ids.digest("compare", text))
        found += [(text, queries.filters) for text in texts[:share]]
    return found[:most]


def _rank_both(
    client: IndexClient,
    targets: tuple[SearchTarget, SearchTarget],
    asked: Sequence[_Asked],
    vectors: tuple[np.ndarray, np.ndarray],
    mode: Mode,
) -> _Both:
    """Return both rankings and both times, in seconds, of each question."""
    rankings, times = [], []
    for turn, number in enumerate([*range(min(_WARM_UP, len(asked))), *range(len(asked))]):
        text, filters = asked[number]
        found: dict[int, tuple[list[str], float]] = {}
        for place in (0, 1) if turn % 2 else (1, 0):
            started = time.perf_counter()
            hits = targets[place].rank(client, text, vectors[place][number], mode=mode, depth=K, filters=filters)
            found[place] = [hit.doc_id for hit in hits], time.perf_counter() - started
        rankings.append((found[0][0], found[1][0]))
        times.append((found[0][1], found[1][1]))
    return rankings[-len(asked) :], times[-len(asked) :]


def _agreement(rankings: Sequence[tuple[list[str], list[str]]]) -> Agreement:
    return Agreement(
        overlap_at_10=float(np.mean([overlap(old, new) for old, new in rankings])),
        rank_biased_overlap=float(np.mean([rank_biased_overlap(old, new) for old, new in rankings])),
    )


def _latency(seconds: Sequence[float]) -> Latency:
    middle, high = np.percentile(np.asarray(seconds) * 1_000, (50, 95))
    return Latency(round(float(middle), 3), round(float(high), 3))


def _counts(store: Store, collection: str) -> dict[str, SourceCounts]:
    rows = TableSlice.newest(store, "index_partitions", lane=collection).read(["partition_key", "doc_id"])
    source = pc.replace_substring_regex(rows["partition_key"], pattern="__[0-9]+$", replacement="")
    counted = (
        pa.table({"source": source, "doc_id": rows["doc_id"]})
        .group_by("source")
        .aggregate([("doc_id", "count_distinct"), ("doc_id", "count")])
        .sort_by("source")
    )
    return {
        row["source"]: SourceCounts(row["doc_id_count_distinct"], row["doc_id_count"]) for row in counted.to_pylist()
    }


def _side(values: Mapping[str, Any]) -> Side:
    return Side(
        collection=values["collection"],
        latency={mode: Latency(**figures) for mode, figures in values["latency"].items()},
        counts={source: SourceCounts(**figures) for source, figures in values["counts"].items()},
        leaks=Leaks(**values["leaks"]),
    )
