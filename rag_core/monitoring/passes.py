"""What comes in and what becomes of it: changes that looks found, passes over partitions, partitions that wait."""

from collections import Counter as Counts
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from rag_core.config import RagConfig
from rag_core.freshness.changes import load_changes
from rag_core.freshness.dirty import dirty_partitions
from rag_core.freshness.passes import load_passes
from rag_core.monitoring.group import SECONDS, begin_at_zero
from rag_core.monitoring.new_rows import NewRows
from rag_core.partitions import all_partition_keys, source_of
from rag_core.tables.store import Store

KINDS: Final = ("new", "changed", "deleted")
OUTCOMES: Final = ("ok", "failed", "held", "crashed")
REASONS: Final = ("change", "manual", "reconcile", "backfill")


class PassMetrics:
    """Changes that were seen, passes over partitions, and partitions that do not get through."""

    name = "passes"

    def __init__(self, store: Store, config: RagConfig) -> None:
        """Name the store; nothing is read yet."""
        self._store, self._config = store, config
        self._changes, self._passes = NewRows("change_id", "seen_at"), NewRows("pass_id", "finished_at")
        self._names = tuple(source.name for source in config.sources)
        self._keys = all_partition_keys(config)
        self.registry = r = CollectorRegistry()
        self._seen = Counter(
            "rag_changes_seen", "Changes of sources that looks found: new, changed, deleted.", ["source", "kind"],
            registry=r,
        )  # fmt: skip
        self._done = Counter(
            "rag_passes", "Tries to bring a partition up to date: ok, failed, held, crashed.", ["source", "outcome"],
            registry=r,
        )  # fmt: skip
        self._objects = Counter(
            "rag_pass_objects", "Objects that were new, changed or gone in these.", ["source"], registry=r
        )
        self._seconds = Histogram(
            "rag_pass_run_duration_seconds", "Time of the runs that made them, by why they ran.", ["reason"],
            buckets=SECONDS, registry=r,
        )  # fmt: skip
        self._partitions = Gauge("rag_partitions", "Partitions of a source.", ["source"], registry=r)
        self._dirty = Gauge("rag_partitions_dirty", "Those with changes that no pass covers.", ["source"], registry=r)
        self._stuck = Gauge(
            "rag_partitions_stuck", "Those that failed for good, or so often that it is reported.", ["source"],
            registry=r,
        )  # fmt: skip
        self._held = Gauge(
            "rag_partitions_held", "Those that a blocking test held back in their newest pass.", ["source"], registry=r
        )
        begin_at_zero(self._seen, [(name, kind) for name in self._names for kind in KINDS])
        begin_at_zero(self._done, [(name, outcome) for name in self._names for outcome in OUTCOMES])
        begin_at_zero(self._objects, [(name,) for name in self._names])
        for reason in REASONS:
            self._seconds.labels(reason)

    def update(self, now: datetime) -> None:
        """Count what is new, and look at partitions."""
        passes = load_passes(self._store)
        self._count_changes(self._changes.of(load_changes(self._store)))
        self._count_passes(self._passes.of(passes))
        held = self._held_partitions(passes)
        for name, count in Counts(map(source_of, self._keys)).items():
            waiting = dirty_partitions(self._store, self._config, name, now=now)
            self._partitions.labels(name).set(count)
            self._dirty.labels(name).set(len(waiting))
            self._stuck.labels(name).set(sum(one.stuck for one in waiting))
            self._held.labels(name).set(held.get(name, 0))

    def _count_changes(self, rows: pa.Table) -> None:
        for row in rows.group_by(["source", "kind"]).aggregate([([], "count_all")]).to_pylist():
            if row["source"] in self._names:
                self._seen.labels(row["source"], row["kind"]).inc(row["count_all"])

    def _count_passes(self, rows: pa.Table) -> None:
        runs: dict[str, Mapping[str, Any]] = {}
        for row in rows.select(["run_id", "source", "outcome", "reason", "objects", "seconds"]).to_pylist():
            if row["source"] in self._names:
                self._done.labels(row["source"], row["outcome"]).inc()
                self._objects.labels(row["source"]).inc(row["objects"])
            runs[row["run_id"]] = row
        for run in runs.values():
            self._seconds.labels(run["reason"]).observe(run["seconds"])

    def _held_partitions(self, passes: pa.Table) -> Counts[str]:
        """Count, by source, the partitions whose newest pass was held back."""
        newest = passes.group_by("partition_key").aggregate([("finished_at", "max")])
        joined = passes.select(["partition_key", "finished_at", "outcome"]).join(
            newest.rename_columns({"finished_at_max": "finished_at"}),
            keys=["partition_key", "finished_at"],
            join_type="inner",
        )
        held = joined.filter(pc.field("outcome") == "held")["partition_key"].to_pylist()
        return Counts(source_of(key) for key in set(held) & set(self._keys))
