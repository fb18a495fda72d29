"""Which changes, passes and alerts are old enough to go.

A change is needed as long as it is pending, or became searchable within the objective's window: then its row and every
pass that began its listing later stay, since its latency is derived from both.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from rag_core.config import RagConfig
from rag_core.freshness.changes import load_changes
from rag_core.freshness.latency import latencies
from rag_core.freshness.passes import load_passes
from rag_core.partitions import all_partition_keys, source_of
from rag_core.retention.sql import in_list, quoted
from rag_core.schemas import TIMESTAMP
from rag_core.tables.delta import TableSlice, in_set
from rag_core.tables.store import Store


def expired_changes(store: Store, config: RagConfig, now: datetime) -> str:
    """Return the condition on changes that go; empty if none do."""
    by_bound: dict[datetime, list[str]] = {}
    for key, bound in sorted(seen_before(load_changes(store), load_passes(store), config, now).items()):
        by_bound.setdefault(bound, []).append(key)
    parts = (f"(seen_at < {quoted(bound)} AND {in_list('partition_key', keys)})" for bound, keys in by_bound.items())
    return " OR ".join(parts)


def seen_before(changes: pa.Table, passes: pa.Table, config: RagConfig, now: datetime) -> dict[str, datetime]:
    """Return, by partition, the time before which all changes that were seen are not needed any more."""
    cutoffs = _cutoffs(config, now)
    known = latencies(changes, passes, now=now)
    bounds = {key: _cutoff(cutoffs, key) for key in pc.unique(known["partition_key"]).to_pylist()}
    # A partition that rag.yaml has no more will never be brought up to date: its changes go by age alone.
    known = known.filter(in_set("partition_key", all_partition_keys(config)))
    for source, until in cutoffs.items():
        needed = pc.fill_null(pc.greater_equal(known["queryable_at"], pa.scalar(until, TIMESTAMP)), True)
        bounds = _lowered(bounds, known.filter(pc.and_(pc.equal(known["source"], source), needed)))
    return bounds


def expired_passes(store: Store, config: RagConfig, now: datetime) -> str:
    """Return the condition on passes that go; empty if none do."""
    bounds, cutoffs = listed_before(load_changes(store), load_passes(store), config, now), _cutoffs(config, now)
    parts = (
        f"({in_list('partition_key', [key])} AND listed_at < {quoted(bound)} "
        f"AND finished_at < {quoted(_cutoff(cutoffs, key))})"
        for key, bound in sorted(bounds.items())
    )
    return " OR ".join(parts)


def listed_before(changes: pa.Table, passes: pa.Table, config: RagConfig, now: datetime) -> dict[str, datetime]:
    """Return, by partition, the time before which the listing of all passes began that no change needs.

    The newest pass of a partition that is configured stays, and the newest that is ok: they say how it stands.
    """
    bounds = dict.fromkeys(pc.unique(passes["partition_key"]).to_pylist(), now)
    for key, bound in seen_before(changes, passes, config, now).items():
        stay = changes.filter((pc.field("partition_key") == key) & (pc.field("seen_at") >= pa.scalar(bound, TIMESTAMP)))
        bounds = _lowered(bounds, stay)
    configured = set(all_partition_keys(config))
    newest: dict[str, dict[bool, datetime]] = {}
    columns = ["partition_key", "listed_at", "outcome"]
    for row in passes.sort_by("finished_at").select(columns).to_pylist():
        newest.setdefault(row["partition_key"], {})[row["outcome"] == "ok"] = row["listed_at"]
    return {key: min(bound, *newest[key].values()) if key in configured else bound for key, bound in bounds.items()}


def expired_alerts(store: Store, config: RagConfig, now: datetime) -> str:
    """Return the condition on alerts that go: old, and not of one that goes on."""
    rows = TableSlice.newest(store, "alerts").read(["alert_id", "state", "at"]).sort_by("at").to_pylist()
    state = {row["alert_id"]: row["state"] for row in rows}
    goes_on = [alert_id for alert_id, last in state.items() if last != "resolved"]
    old = f"at < {quoted(min(_cutoffs(config, now).values()))}"
    return f"{old} AND NOT {in_list('alert_id', goes_on)}"


def _cutoffs(config: RagConfig, now: datetime) -> dict[str, datetime]:
    """Return, by source, the time until when what became known goes; under `` of sources that are not configured."""
    days = {source.name: config.objective_of(source).window_days for source in config.sources}
    least = config.retention.changes_days
    return {name: now - timedelta(days=max(least, more)) for name, more in {**days, "": 0}.items()}


def _cutoff(cutoffs: Mapping[str, datetime], partition_key: str) -> datetime:
    return cutoffs.get(source_of(partition_key), cutoffs[""])


def _lowered(bounds: Mapping[str, datetime], stay: pa.Table) -> dict[str, datetime]:
    """Lower the bounds to the first look that saw any of some changes."""
    first = stay.select(["partition_key", "seen_at"]).group_by("partition_key").aggregate([("seen_at", "min")])
    lowered = dict(bounds)
    for row in first.to_pylist():
        key = row["partition_key"]
        if key in lowered:
            lowered[key] = min(lowered[key], row["seen_at_min"])
    return lowered
