"""How old the newest snapshot of the tables is."""

from datetime import datetime

from prometheus_client import CollectorRegistry, Gauge

from rag_core.backup.layout import backup_store, snapshot_names, snapshot_time
from rag_core.tables.store import Store


class BackupMetrics:
    """For a store whose configuration says where snapshots go."""

    name = "backups"

    def __init__(self, store: Store, to: str) -> None:
        """Name the store, and where its snapshots go."""
        self._backup = backup_store(store, to)
        self.registry = r = CollectorRegistry()
        self._last = Gauge(
            "rag_backup_last_snapshot_timestamp_seconds", "When the newest snapshot was begun; 0: there is none.",
            registry=r,
        )  # fmt: skip
        self._snapshots = Gauge("rag_backup_snapshots", "Snapshots that are kept.", registry=r)

    def update(self, now: datetime) -> None:
        """List the snapshots."""
        names = snapshot_names(self._backup)
        self._snapshots.set(len(names))
        self._last.set(snapshot_time(names[-1]).timestamp() if names else 0)
