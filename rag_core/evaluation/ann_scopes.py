"""What a measured search is restricted to, said twice: to Milvus as a filter, and to the oracle as a mask of rows."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rag_core.evaluation.sampling import Sample
from rag_core.index.schema import any_of, quoted
from rag_core.partitions import source_of
from rag_core.tables.delta import TableSlice

Mask = Callable[[pa.RecordBatch | pa.Table], NDArray[np.bool_]]

COLUMNS: Final = ("partition_key", "chunk_id", "doc_id", "vector")
"""Columns of `embeddings` that the oracle reads."""

SHARES: Final = ((0.01, "1 % of rows"), (0.10, "10 % of rows"))


@dataclass(frozen=True)
class Scope:
    """A restriction of a search.

    Attributes:
        name: As it stands in results: "all", a filter's name, or a partition key.
        kind: all, filter or partition.
        admits: Tells of rows with `COLUMNS` which of them match, as (rows,) bool.
        expression: Milvus filter; empty if there is none.
        partition_keys: Dagster partitions that are searched; None for all.
    """

    name: str
    kind: Literal["all", "filter", "partition"]
    admits: Mask = field(repr=False)
    expression: str = ""
    partition_keys: tuple[str, ...] | None = None


def scopes_of(sample: Sample, chunks: TableSlice | None, *, k: int) -> list[Scope]:
    """Build what is measured: everything, 1 % and 10 % of the rows, one source, one access label, each partition.

    The 1 % and 10 % are those with the smallest chunk_id, by `chunk_id < "..."`. The ids are digests, so this is a
    random part of known size, and the same expression on every backend; `doc_id in [...]` of as many documents gives
    about the same recall (HNSW of Milvus Lite at ef 256: 0.45 by chunk_id, 0.41 by doc_id). Shares of fewer than k
    rows are widened to k. The source and the label are those with the fewest rows, k or more: the hardest.

    Args:
        sample: Drawn with the largest of `SHARES` as its `lowest_share`.
        chunks: Table `chunks` in the generation's lane; without it there is no access label.
        k: Hits of a search.
    """
    scopes = [Scope("all", "all", lambda rows: np.ones(rows.num_rows, np.bool_))]
    total = sum(sample.rows.values())
    for share, name in SHARES:
        count = max(round(share * total), k)
        if count < len(sample.lowest_ids):
            scopes.append(_below(name, sample.lowest_ids[count].as_py()))
    by_source: Counter[str] = Counter()
    for key, rows in sample.rows.items():
        by_source[source_of(key)] += rows
    if by_source:
        scopes.append(_source(_rarest(by_source, k)))
    if chunks is not None and (label := _access_label(chunks, k)) is not None:
        scopes.append(label)
    return scopes + [_partition(key) for key in sample.rows]


def _below(name: str, limit: str) -> Scope:
    return Scope(name, "filter", lambda rows: _bools(pc.less(rows["chunk_id"], limit)), f"chunk_id < {quoted(limit)}")


def _source(source: str) -> Scope:
    def admits(rows: pa.RecordBatch | pa.Table) -> NDArray[np.bool_]:
        return np.array([source_of(key) == source for key in rows["partition_key"].to_pylist()], np.bool_)

    return Scope("one source", "filter", admits, any_of("source", [source]))


def _partition(key: str) -> Scope:
    return Scope(key, "partition", lambda rows: _bools(pc.equal(rows["partition_key"], key)), partition_keys=(key,))


def _access_label(chunks: TableSlice, k: int) -> Scope | None:
    """Of a label its documents are in memory, not its chunks: all chunks of a document have the document's label."""
    counts: Counter[str] = Counter()
    for batch in chunks.batches(["access_label"]):
        for entry in pc.value_counts(batch.column("access_label")).to_pylist():
            counts[entry["values"]] += entry["counts"]
    if not counts:
        return None
    label = _rarest(counts, k)
    documents: set[str] = set()
    for batch in chunks.batches(["doc_id"], pc.field("access_label") == label):
        documents.update(batch.column("doc_id").to_pylist())
    listed = pa.array(sorted(documents), pa.string())
    expression = any_of("access_label", [label])
    return Scope("one access label", "filter", lambda rows: _bools(pc.is_in(rows["doc_id"], listed)), expression)


def _rarest(counts: Counter[str], k: int) -> str:
    """The key with the fewest rows among those with k or more; the largest if none has as many."""
    enough = {key: rows for key, rows in counts.items() if rows >= k} or {
        max(sorted(counts), key=counts.__getitem__): 1
    }
    return min(sorted(enough), key=enough.__getitem__)


def _bools(column: pa.Array | pa.ChunkedArray) -> NDArray[np.bool_]:
    values: NDArray[np.bool_] = (
        column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column.to_numpy()
    )
    return values.astype(np.bool_, copy=False)
