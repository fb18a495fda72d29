"""Which stored vectors are searched for: a sample that depends on ids only, so that two measurements compare."""

import heapq
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from rag_core import ids
from rag_core.tables.delta import TableSlice


@dataclass(frozen=True, slots=True)
class Sample:
    """Sampled chunks of a table, and what was counted and ordered on the way.

    Attributes:
        rows: Partition key -> rows; partitions without rows are not in it.
        overall: Sampled ids, each partition in proportion to its rows, in the order of their hashes: any beginning of
            it is a sample as well.
        by_partition: Partition key -> sampled ids, at least `per_partition` of each or all that there are.
        lowest_ids: The ids that are smallest as strings, in order, one more than was asked for where there is one.
    """

    rows: Mapping[str, int]
    overall: tuple[str, ...]
    by_partition: Mapping[str, tuple[str, ...]]
    lowest_ids: pa.Array


def draw(
    vectors: TableSlice, samples: int, *, per_partition: int = 0, lowest_share: float = 0.0, lowest_at_least: int = 0
) -> Sample:
    """Sample chunk ids by the order of their hashes, stratified over partitions.

    The hash is not the id itself: the sample must not be correlated with a filter on ids.

    Args:
        vectors: Table with `partition_key` and `chunk_id`. It is streamed; the sample and `lowest_share` of the ids
            are in memory.
        samples: Size of the whole sample; all rows if there are fewer.
        per_partition: Least sample of each partition; what goes beyond `samples` is in `by_partition` only.
        lowest_share: Share of the ids to return as `lowest_ids`.
        lowest_at_least: Number of them to return at least.
    """
    rows: Counter[str] = Counter()
    for batch in vectors.batches(["partition_key"]):
        for key, count in _counts(batch.column("partition_key")):
            rows[key] += count
    overall = quotas(rows, samples)
    wanted = {key: max(overall[key], min(per_partition, count)) for key, count in rows.items()}
    lowest_count = max(math.ceil(lowest_share * rows.total()), lowest_at_least)
    ordered, lowest = _smallest(vectors, wanted, lowest_count + 1)
    proportional = sorted(pair for key, pairs in ordered.items() for pair in pairs[: overall[key]])
    return Sample(
        rows=dict(sorted(rows.items())),
        overall=tuple(chunk_id for _, chunk_id in proportional),
        by_partition={key: tuple(chunk_id for _, chunk_id in pairs) for key, pairs in sorted(ordered.items())},
        lowest_ids=lowest,
    )


def quotas(rows: Mapping[str, int], samples: int) -> dict[str, int]:
    """Share a sample out in proportion to rows, by the method of largest remainders.

    Source: Hamilton's method; Balinski and Young 1982, "Fair Representation", chapter 2.

    Returns:
        Key -> size, which sum to the smaller of samples and all rows; none is above its rows.
    """
    total = sum(rows.values())
    if samples >= total:
        return dict(rows)
    shares = {key: divmod(count * samples, total) for key, count in rows.items()}
    left = samples - sum(whole for whole, _ in shares.values())
    by_remainder = sorted(shares, key=lambda key: (-shares[key][1], key))
    return {key: whole + (key in by_remainder[:left]) for key, (whole, _) in shares.items()}


def _smallest(
    vectors: TableSlice, wanted: Mapping[str, int], lowest_count: int
) -> tuple[dict[str, list[tuple[str, str]]], pa.Array]:
    """Of each partition the wanted number of (hash, id) with the smallest hashes; and the smallest ids of all."""
    best: dict[str, list[tuple[str, str]]] = {key: [] for key in wanted}
    lowest = pa.array([], pa.string())
    for batch in vectors.batches(["partition_key", "chunk_id"]):
        for key, _ in _counts(batch.column("partition_key")):
            names = batch.filter(pc.equal(batch.column("partition_key"), key)).column("chunk_id").to_pylist()
            hashed = {(ids.digest("sample", name), name) for name in names}
            best[key] = heapq.nsmallest(wanted[key], hashed.union(best[key]))
        lowest = pa.concat_arrays([lowest, batch.column("chunk_id")])
        lowest = lowest.take(pc.sort_indices(lowest)).slice(0, lowest_count)
    return best, lowest


def _counts(column: pa.Array) -> list[tuple[str, int]]:
    return [(entry["values"], entry["counts"]) for entry in pc.value_counts(column).to_pylist()]
