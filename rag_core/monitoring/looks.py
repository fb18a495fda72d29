"""Looks at the sources: when the newest was, and what keeps them from finding anything."""

from datetime import datetime
from typing import Final

from prometheus_client import CollectorRegistry, Gauge

from rag_core.alerts.reading import read_looks, read_poison, read_problems
from rag_core.config import RagConfig
from rag_core.monitoring.group import replace_all
from rag_core.tables.store import Store

PROBLEMS: Final = ("listing_failed", "implausible_shrink")


class LookMetrics:
    """What the sensors of sources leave in small files of the store."""

    name = "looks"

    def __init__(self, store: Store, config: RagConfig) -> None:
        """Name the store; nothing is read yet."""
        self._store, self._config = store, config
        self.registry = r = CollectorRegistry()
        self._last = Gauge(
            "rag_source_last_look_timestamp_seconds", "When the newest completed look at a source began.", ["source"],
            registry=r,
        )  # fmt: skip
        self._problem = Gauge(
            "rag_source_listing_problem", "1 while looks find nothing: listing_failed, implausible_shrink.",
            ["source", "problem"], registry=r,
        )  # fmt: skip
        self._poison = Gauge(
            "rag_source_poison_events", "Notifications that could not be understood and were set aside.", ["source"],
            registry=r,
        )  # fmt: skip

    def update(self, now: datetime) -> None:
        """Read the small files that looks leave."""
        names = [source.name for source in self._config.sources]
        looks = read_looks(self._store, self._config)
        replace_all(self._last, {(one.source,): one.started_at.timestamp() for one in looks})
        found = {(one.source, one.kind) for one in read_problems(self._store, self._config)}
        replace_all(
            self._problem,
            {(name, problem): float((name, problem) in found) for name in names for problem in PROBLEMS},
        )
        poison = {one.source: one.count for one in read_poison(self._store, self._config)}
        replace_all(self._poison, {(name,): poison.get(name, 0) for name in names})
