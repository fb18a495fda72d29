"""Which results of tests, verdicts and evaluations are old enough to go.

Whatever their age, these stay: of each test and partition the newest result (the gate takes it while the content is the
same), the newest that passed (what later ones are held against) and the newest acceptance; of each collection the
newest verdict, the newest that passed, and what was measured for them.
"""

from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rag_core.config import RagConfig
from rag_core.quality.results import ACCEPTED
from rag_core.retention.sql import in_list, quoted
from rag_core.tables.delta import TableSlice
from rag_core.tables.store import Store

_TEST = ["table", "lane", "partition_key", "test"]


def expired_results(store: Store, config: RagConfig, now: datetime) -> str:
    """Return the condition on results that go; empty if none do."""
    until = _until(config, now)
    kept = kept_results(_results(store))
    old = kept.filter(pc.less(kept["evaluated_at"], pa.scalar(until, kept["evaluated_at"].type)))
    return f"evaluated_at < {quoted(until)} AND NOT {in_list('result_id', old['result_id'].to_pylist())}"


def expired_failures(store: Store, config: RagConfig, now: datetime) -> str:
    """Return the condition on failing rows that go: those of results that go, and those without a result."""
    until = _until(config, now)
    kept = kept_results(_results(store)).filter(pc.field("outcome") != "pass")
    old = kept.filter(pc.less(kept["evaluated_at"], pa.scalar(until, kept["evaluated_at"].type)))
    # Failing rows were written before their result, and have a time of their own: a day on the safe side.
    before = until - timedelta(days=1)
    return f"evaluated_at < {quoted(before)} AND NOT {in_list('result_id', old['result_id'].to_pylist())}"


def kept_results(results: pa.Table) -> pa.Table:
    """Return the results that stay whatever their age: the newest, and what the next one may be held against."""
    ordered = results.sort_by([("evaluated_at", "descending")])
    accepted = pc.equal(ordered["content"], ACCEPTED)
    passed = pc.and_(pc.equal(ordered["outcome"], "pass"), pc.invert(accepted))
    measured = pc.and_(pc.is_valid(ordered["value"]), pc.invert(accepted))
    parts = [_first(ordered.filter(mask)) for mask in (pc.invert(accepted), passed, measured, accepted)]
    return pa.concat_tables([_first(ordered), *parts])


def expired_verdicts(store: Store, config: RagConfig, now: datetime) -> str:
    """Return the condition on verdicts that go."""
    kept = [row["verdict_id"] for row in _kept_verdicts(store)]
    return f"judged_at < {quoted(_until(config, now))} AND NOT {in_list('verdict_id', kept)}"


def expired_evaluations(store: Store, config: RagConfig, now: datetime) -> str:
    """Return the condition on evaluated questions that go."""
    rows = TableSlice.newest(store, "retrieval_eval").read(["collection", "evaluated_at"])
    times: dict[str, list[datetime]] = {}
    for row in rows.group_by(["collection", "evaluated_at"]).aggregate([]).to_pylist():
        times.setdefault(row["collection"], []).append(row["evaluated_at"])
    kept = {max(of_collection) for of_collection in times.values()}
    for verdict in _kept_verdicts(store):
        measured = [time for time in times.get(verdict["collection"], []) if time <= verdict["judged_at"]]
        kept.update(measured and [max(measured)])
    return f"evaluated_at < {quoted(_until(config, now))} AND NOT {in_list('evaluated_at', sorted(kept))}"


def _kept_verdicts(store: Store) -> list[dict[str, Any]]:
    rows = TableSlice.newest(store, "verdicts").read(["verdict_id", "collection", "judged_at", "passed"])
    kept: dict[tuple[str, bool], dict[str, Any]] = {}
    for row in rows.sort_by([("judged_at", "descending")]).to_pylist():
        kept.setdefault((row["collection"], False), row)
        if row["passed"]:
            kept.setdefault((row["collection"], True), row)
    return list(kept.values())


def _results(store: Store) -> pa.Table:
    columns = [*_TEST, "result_id", "evaluated_at", "outcome", "content", "value"]
    return TableSlice.newest(store, "quality_results").read(columns)


def _first(ordered: pa.Table) -> pa.Table:
    """Return the first row of each test and partition."""
    numbered = ordered.append_column("row", pa.array(range(ordered.num_rows), pa.int64()))
    first = numbered.group_by(_TEST).aggregate([("row", "min")])["row_min"]
    return ordered.take(first)


def _until(config: RagConfig, now: datetime) -> datetime:
    return now - timedelta(days=config.retention.results_days)
