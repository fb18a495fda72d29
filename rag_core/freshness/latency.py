"""When each change of a source became searchable, derived from two tables that only grow: changes seen, and passes.

Nothing is stored about a change's latency, so no crash can falsify it. Pure: tables in, tables out.
"""

from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rag_core.schemas import SOURCE_CHANGES, TIMESTAMP

Micros = NDArray[np.int64]
"""Times, in microseconds since 1970, or spans of time, in microseconds."""

NEVER: Final = np.iinfo(np.int64).max
"""In place of a time that has not come."""

LATENCIES: Final = pa.schema(
    [
        *SOURCE_CHANGES,
        pa.field("queryable_at", TIMESTAMP),
        pa.field("latency_s", pa.float64()),
        pa.field("age_s", pa.float64()),
    ]
)
"""Columns of `latencies`."""


def latencies(changes: pa.Table, passes: pa.Table, *, now: datetime) -> pa.Table:
    """Say of each change when it was verified as searchable, as far as was known at a time.

    A change is searchable at the smallest `verified_at` of the passes over its partition that ended well and began
    their listing of the source when the change had been seen, or later. A pass that failed, was held back or crashed
    does not count, nor does a pass over another partition, whatever it was for.

    Args:
        changes: Rows of `source_changes`. A `change_id` that is there twice counts once. `changed_at` is held between
            `not_before` and `seen_at`, should a clock have been wrong when it was written.
        passes: Rows of `passes`, in any order; repeated rows do no harm.
        now: Changes seen and passes verified later are left out, so that the past can be asked about.

    Returns:
        The changes, in their order, with `queryable_at` (null: pending), `latency_s` (from `changed_at` until then;
        null: pending) and `age_s` (of pending ones, from `changed_at` until now; else null).
    """
    present = micros_of(now)
    changes = _once(changes.filter(pc.less_equal(changes["seen_at"], pa.scalar(now, TIMESTAMP))).combine_chunks())
    seen = micros(changes["seen_at"])
    changed = np.maximum(micros(changes["changed_at"]), micros(changes["not_before"], missing=0))
    changed = np.minimum(changed, seen)
    queryable = _queryable_at(changes["partition_key"], seen, passes, present)
    pending = queryable == NEVER
    # Should the clock have been set back in between, the latency is 0 and not less.
    latency = np.maximum(np.where(pending, 0, queryable) - changed, 0) / 1e6
    columns = {name: changes[name] for name in changes.column_names}
    columns["changed_at"] = pa.array(changed, pa.int64()).cast(TIMESTAMP)
    columns["queryable_at"] = pa.array(queryable, pa.int64(), mask=pending).cast(TIMESTAMP)
    columns["latency_s"] = pa.array(latency, pa.float64(), mask=pending)
    columns["age_s"] = pa.array((present - changed) / 1e6, pa.float64(), mask=~pending)
    return pa.table(columns).select(LATENCIES.names).cast(LATENCIES)


def micros(times: pa.ChunkedArray, *, missing: int = NEVER) -> Micros:
    """Return times as numbers, those that are null as `missing`."""
    numbers: Micros = times.cast(TIMESTAMP).cast(pa.int64()).fill_null(missing).to_numpy()
    return numbers


def micros_of(time: datetime) -> int:
    """Return a time as a number."""
    return int(pa.scalar(time, TIMESTAMP).value)


def slowest(rows: pa.Table, most: int, *, now: datetime, days: int) -> list[dict[str, Any]]:
    """Return the counted changes of `latencies` of the last days that took longest, worst first."""
    since = pa.scalar(now - timedelta(days=days), TIMESTAMP)  # by when they were searchable
    found = rows.filter(pc.and_kleene(rows["counted"], pc.greater(rows["queryable_at"], since)))
    return list(found.sort_by([("latency_s", "descending"), ("change_id", "ascending")]).slice(0, most).to_pylist())


def pending(rows: pa.Table, most: int) -> list[dict[str, Any]]:
    """Return the counted changes of `latencies` that are not searchable yet, the oldest first."""
    found = rows.filter(pc.and_(rows["counted"], pc.is_null(rows["queryable_at"])))
    return list(found.sort_by([("changed_at", "ascending"), ("change_id", "ascending")]).slice(0, most).to_pylist())


def _once(changes: pa.Table) -> pa.Table:
    """Keep the first row of each change."""
    if pc.count_distinct(changes["change_id"]).as_py() == changes.num_rows:
        return changes
    numbered = changes.select(["change_id"]).append_column("row", pa.array(np.arange(changes.num_rows)))
    first = numbered.group_by("change_id").aggregate([("row", "min")])["row_min"]
    return changes.take(np.sort(first.to_numpy()))


def _queryable_at(partitions: pa.ChunkedArray, seen: Micros, passes: pa.Table, present: int) -> Micros:
    """Return for each change the smallest time of verification that covers it, or NEVER."""
    names = pc.unique(partitions)
    of_change = pc.index_in(partitions, value_set=names).to_numpy()
    of_pass = pc.index_in(passes["partition_key"], value_set=names).fill_null(-1).to_numpy()
    listed, verified = micros(passes["listed_at"]), micros(passes["verified_at"])
    is_ok = pc.equal(passes["outcome"], "ok").to_numpy()
    chosen = np.flatnonzero(is_ok & (of_pass >= 0) & (verified <= present))
    chosen = chosen[np.lexsort((listed[chosen], of_pass[chosen]))]
    of_pass, listed, verified = of_pass[chosen], listed[chosen], verified[chosen]
    result = np.full(len(seen), NEVER, np.int64)
    order = np.argsort(of_change, kind="stable")
    codes = np.arange(len(names))
    change_edges, pass_edges = (
        np.searchsorted(sorted_codes, [*codes, len(names)]) for sorted_codes in (of_change[order], of_pass)
    )
    for code in codes:
        own = slice(pass_edges[code], pass_edges[code + 1])
        if own.start == own.stop:
            continue
        rows = order[change_edges[code] : change_edges[code + 1]]
        # A pass that began later may have ended earlier: of all from each place on, the smallest.
        earliest = np.minimum.accumulate(verified[own][::-1])[::-1]
        result[rows] = np.append(earliest, NEVER)[np.searchsorted(listed[own], seen[rows], side="left")]
    return result
