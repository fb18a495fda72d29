"""The table `alerts`: everything that was ever told."""

from collections.abc import Sequence
from typing import Any

from rag_core.alerts.model import Alert
from rag_core.tables.delta import TableSlice
from rag_core.tables.log import append_rows
from rag_core.tables.store import Store

TABLE = "alerts"


def append_alerts(store: Store, alerts: Sequence[Alert]) -> None:
    """Append alerts. A crash right after it has them appended again; `read_alerts` shows each once."""
    append_rows(store, TABLE, [alert.to_row() for alert in alerts])


def read_alerts(store: Store, newest: int) -> list[dict[str, Any]]:
    """Return the newest rows of the table, newest first; none if nothing was told yet."""
    rows = TableSlice.newest(store, TABLE).read().sort_by([("at", "descending"), ("alert_key", "ascending")])
    seen: dict[tuple[str, ...], dict[str, Any]] = {}
    for batch in rows.to_batches(max_chunksize=1_024):
        for row in batch.to_pylist():
            seen.setdefault((row["alert_id"], row["state"], row["at"].isoformat()), row)
            if len(seen) == newest:
                return list(seen.values())
    return list(seen.values())
