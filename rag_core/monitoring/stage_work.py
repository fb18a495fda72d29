"""What the stages do and how long each step takes, from what their commits say."""

from datetime import datetime
from typing import Final

from prometheus_client import CollectorRegistry, Counter

from rag_core.monitoring.commits import NewCommits
from rag_core.monitoring.group import begin_at_zero
from rag_core.tables.store import Store

_ITEMS: Final = {
    "documents": ("parsed", "rejected", "renamed"),
    "chunks": ("documents_chunked", "chunks"),
    "embeddings": ("embedded", "reused"),
    "index_partitions": ("upserted", "deleted", "repaired", "receipts"),
}
"""What is counted of each stage: figures of the commits' `totals`."""


class StageMetrics:
    """Work and time of the stages, in total since the exporter started."""

    name = "stages"

    def __init__(self, store: Store) -> None:
        """Name the store; nothing is read yet."""
        self._commits = {stage: NewCommits(store, stage) for stage in _ITEMS}
        self.registry = r = CollectorRegistry()
        self._committed = Counter("rag_stage_commits", "Changes that a stage committed.", ["stage"], registry=r)
        self._items = Counter("rag_stage_items", "What a stage worked on, by kind.", ["stage", "item"], registry=r)
        self._bytes = Counter("rag_stage_read_bytes", "Bytes of objects that were parsed.", registry=r)
        self._seconds = Counter(
            "rag_stage_step_seconds", "Wall-clock time of the steps of a stage.", ["stage", "step"], registry=r
        )
        begin_at_zero(self._committed, [(stage,) for stage in _ITEMS])
        begin_at_zero(self._items, [(stage, item) for stage, items in _ITEMS.items() for item in items])

    def update(self, now: datetime) -> None:
        """Add up what was committed since the last time."""
        for stage, items in _ITEMS.items():
            for commit in self._commits[stage].read()[0]:
                self._committed.labels(stage).inc()
                self._bytes.inc(commit.totals.get("bytes_read", 0))
                for item in items:
                    self._items.labels(stage, item).inc(commit.totals.get(item, 0))
                for step, seconds in commit.seconds.items():
                    self._seconds.labels(stage, step).inc(seconds)
