"""The oracle of ANN recall: exact nearest rows of the table `embeddings`, found in one pass and in bounded memory."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rag_core.errors import FingerprintMismatchError
from rag_core.evaluation.ann_scopes import COLUMNS, SHARES, Scope, scopes_of
from rag_core.evaluation.sampling import Sample, draw
from rag_core.index.schema import vectors_of
from rag_core.tables.delta import TableSlice, in_set

K: Final = 10
_PER_PARTITION: Final = 5  # queries in each partition, at least
_SCORES: Final = 8_000_000  # scores in memory at once: 32 MB
_BATCH_ROWS: Final = 4_096

Vectors = NDArray[np.float32]


class RunningTopK:
    """The k best rows of a stream for each of several queries; holds k rows per query and nothing else."""

    def __init__(self, queries: int, k: int) -> None:
        self.scores: Vectors = np.full((queries, k), -np.inf, np.float32)
        self.ids: NDArray[np.object_] = np.full((queries, k), "", object)
        self.rows = 0

    def add(self, ids: NDArray[np.object_], scores: Vectors) -> None:
        """Take rows in.

        Args:
            ids: (rows,) chunk ids.
            scores: (queries, rows) float32, higher is nearer; what is not a number ranks last.
        """
        self.rows += len(ids)
        k = self.scores.shape[1]
        scores = np.where(np.isnan(scores), -np.inf, scores)
        if scores.shape[1] > k:
            best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        else:
            best = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
        joined = np.concatenate([self.scores, np.take_along_axis(scores, best, axis=1)], axis=1)
        names = np.concatenate([self.ids, ids[best]], axis=1)
        order = np.argsort(-joined, axis=1, kind="stable")[:, :k]
        self.scores = np.take_along_axis(joined, order, axis=1)
        self.ids = np.take_along_axis(names, order, axis=1)


@dataclass(frozen=True)
class ScopeTruth:
    """What is nearest within a scope.

    Attributes:
        scope: The restriction.
        asked: (n,) numbers of the queries that are asked in it.
        rows: Rows of the table that match.
        ids: (n, k) chunk ids, best first; empty strings where fewer than k rows match.
        scores: (n, k) float32 exact scores, -inf where fewer match.
    """

    scope: Scope
    asked: NDArray[np.int64]
    rows: int
    ids: NDArray[np.object_]
    scores: Vectors


@dataclass(frozen=True)
class Truth:
    """Queries, and their exact answers under every scope. Made once, and used for every setting that is measured.

    Attributes:
        vectors: The table, narrowed to what the collection must hold.
        metric: COSINE or IP.
        k: Rows of an answer.
        queries: (n, dim) float32.
        kinds: Of each query: "stored" or "given".
        scopes: In the order "all", filters, partitions.
        unusable: Sampled vectors that are no query: zero, or not finite.
    """

    vectors: TableSlice
    metric: str
    k: int
    queries: Vectors
    kinds: tuple[str, ...]
    scopes: tuple[ScopeTruth, ...]
    unusable: int = 0
    _stored: "StoredRows" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_stored", StoredRows(self.vectors))

    @property
    def stored(self) -> "StoredRows":
        """Rows of the table by id, kept once read."""
        return self._stored

    def scores(self, query: int, vectors: Vectors) -> Vectors:
        """Score vectors against a query: (rows,) float32, as the oracle does."""
        exact: Vectors = comparable(vectors, self.metric) @ self.queries[query]
        return exact


class StoredRows:
    """Rows that searches found and the oracle did not list; read together, since each reading scans the table."""

    def __init__(self, vectors: TableSlice) -> None:
        self._vectors = vectors
        self._table = pa.table({name: pa.array([], vectors.schema.field(name).type) for name in COLUMNS})
        self._position: dict[str, int] = {}
        self._asked: set[str] = set()

    def load(self, chunk_ids: Iterable[str]) -> None:
        """Read the rows of these ids that were not read yet; ids that are not in the table are remembered as such."""
        missing = sorted(set(chunk_ids) - self._asked)
        if not missing:
            return
        self._asked.update(missing)
        found = self._vectors.read(COLUMNS, in_set("chunk_id", missing))
        for offset, name in enumerate(found["chunk_id"].to_pylist()):
            self._position[name] = self._table.num_rows + offset
        self._table = pa.concat_tables([self._table, found.cast(self._table.schema)])

    def rows(self, chunk_ids: Sequence[str]) -> pa.Table:
        """Return the rows, with `COLUMNS`, of those ids that are in the table; they were loaded before."""
        return self._table.take(
            pa.array([self._position[one] for one in chunk_ids if one in self._position], pa.int64())
        )


def comparable(vectors: Vectors, metric: str) -> Vectors:
    """Return vectors whose inner product is the metric's score: of unit length for COSINE. Zero vectors become NaN."""
    if metric != "COSINE":
        return vectors
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled


def find_truth(
    vectors: TableSlice,
    queries: Vectors | None = None,
    *,
    samples: int,
    partition_keys: Sequence[str] | None = None,
    chunks: TableSlice | None = None,
    metric: str = "COSINE",
    k: int = K,
) -> Truth:
    """Sample queries and find their exact answers, overall and under every scope.

    The table is streamed twice for its ids and once for its vectors, whose scores against all queries are one matrix
    product a batch. In memory are one batch, k rows for each query and scope, and a tenth of the ids.

    Args:
        vectors: Table `embeddings` in the generation's lane.
        queries: (n, dim) float32 vectors of questions, of the same model; the first `samples` of them are asked too.
        samples: Stored vectors to search for; more if partitions would have fewer than five.
        partition_keys: Partitions that the collection must hold; None for all.
        chunks: Table `chunks` in the generation's lane, for access labels.
        metric: The collection's.
        k: Rows of an answer.

    Raises:
        FingerprintMismatchError: Queries and table differ in dimension.
    """
    vectors = vectors if partition_keys is None else vectors.of(*partition_keys)
    largest = max(share for share, _ in SHARES)
    sample = draw(vectors, samples, per_partition=_PER_PARTITION, lowest_share=largest, lowest_at_least=k)
    stored, unusable = _stored_queries(vectors, sample)
    given = np.empty((0, 0), np.float32) if queries is None else np.asarray(queries[:samples], np.float32)
    asked = _all_queries(stored, given)
    number = {chunk_id: position for position, chunk_id in enumerate(stored)}
    overall = [number[one] for one in sample.overall if one in number] + list(range(len(stored), len(asked)))
    own = {key: [number[one] for one in names if one in number] for key, names in sample.by_partition.items()}
    scopes = scopes_of(sample, None if chunks is None else _narrowed(chunks, partition_keys), k=k)
    numbers = [np.array(own[one.name] if one.kind == "partition" else overall, np.int64) for one in scopes]
    asked = comparable(asked, metric)
    found = _exact(vectors, asked, scopes, numbers, metric, k)
    truths = tuple(
        ScopeTruth(scope, one, best.rows, best.ids, best.scores)
        for scope, one, best in zip(scopes, numbers, found, strict=True)
    )
    kinds = ("stored",) * len(stored) + ("given",) * len(given)
    return Truth(vectors, metric, k, asked, kinds, truths, unusable)


def _narrowed(table: TableSlice, partition_keys: Sequence[str] | None) -> TableSlice:
    return table if partition_keys is None else table.of(*partition_keys)


def _stored_queries(vectors: TableSlice, sample: Sample) -> tuple[dict[str, Vectors], int]:
    """Read the sampled vectors by id, in a fixed order; count those that cannot be searched for."""
    names = sorted({*sample.overall, *(one for listed in sample.by_partition.values() for one in listed)})
    if not names:
        return {}, 0
    rows = vectors.read(["chunk_id", "vector"], in_set("chunk_id", names))
    found = dict(zip(rows["chunk_id"].to_pylist(), vectors_of(rows), strict=True))
    usable = {name: found[name] for name in names if np.isfinite(found[name]).all() and found[name].any()}
    return usable, len(names) - len(usable)


def _all_queries(stored: dict[str, Vectors], given: Vectors) -> Vectors:
    parts = [np.stack(list(stored.values()))] if stored else []
    parts += [given] if given.size else []
    if len({part.shape[1] for part in parts}) > 1:
        raise FingerprintMismatchError(
            f"queries have dimension {given.shape[1]}, stored vectors {parts[0].shape[1]}: two models were mixed"
        )
    return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)


def _exact(
    vectors: TableSlice,
    queries: Vectors,
    scopes: Sequence[Scope],
    asked: Sequence[NDArray[np.int64]],
    metric: str,
    k: int,
) -> list[RunningTopK]:
    best = [RunningTopK(len(numbers), k) for numbers in asked]
    if not len(queries):
        return best
    batch_rows = int(np.clip(_SCORES // max(len(queries), 1), 64, _BATCH_ROWS))
    for batch in vectors.batches(COLUMNS, batch_rows=batch_rows):
        scores = queries @ comparable(vectors_of(batch), metric).T
        names = np.array(batch.column("chunk_id").to_pylist(), object)
        present = set(batch.column("partition_key").to_pylist())
        for scope, numbers, running in zip(scopes, asked, best, strict=True):
            if scope.partition_keys is not None and present.isdisjoint(scope.partition_keys):
                continue
            admitted = np.flatnonzero(scope.admits(batch))
            running.add(names[admitted], scores[np.ix_(numbers, admitted)])
    return best
