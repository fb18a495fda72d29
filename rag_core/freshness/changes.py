"""Changes of sources, as looks found them. The table `source_changes`; rows are made by `rag_core.freshness.rows`."""

from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from rag_core.tables.log import append_table
from rag_core.tables.log_reading import read_log
from rag_core.tables.store import Store

TABLE = "source_changes"


def load_changes(store: Store, *, source: str | None = None, since: datetime | None = None) -> pa.Table:
    """Return changes, each once, by `seen_at`. Repeated calls cost little.

    Args:
        store: Holds the table.
        source: Only of this source.
        since: Only those that were seen then or later.
    """
    rows = read_log(store, TABLE, key="change_id", time="seen_at")
    if source is not None:
        rows = rows.filter(pc.field("source") == source)
    if since is not None:
        rows = rows.filter(pc.field("seen_at") >= pa.scalar(since, rows["seen_at"].type))
    return rows


def append_changes(store: Store, rows: pa.Table) -> None:
    """Append rows in one commit; done again, it has no effect for readers."""
    append_table(store, TABLE, rows)
