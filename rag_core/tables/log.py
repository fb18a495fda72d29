"""Tables that only grow: rows are appended, never changed. Readers see whole appends."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError

from rag_core.tables.delta import SCHEMAS, newest_version, writable_table
from rag_core.tables.landing import append_once
from rag_core.tables.store import Store
from rag_core.tables.store_errors import errors_about

# Each append is a file. Reading 64 small files takes some 20 ms; thousands, after a busy day, would take seconds.
_COMPACT_EVERY = 64


def append_rows(store: Store, table: str, rows: Sequence[Mapping[str, Any]], *, run_id: str = "") -> int:
    """Append rows in one commit; none, and nothing is committed. Every so many appends the files are made one.

    Args:
        store: Holds the table.
        table: Its name; rows have its columns.
        rows: By column name.
        run_id: Kept with the commit.

    Returns:
        The table's version.
    """
    data = pa.Table.from_pylist([dict(row) for row in rows], schema=SCHEMAS[table])
    return append_table(store, table, data, run_id=run_id)


def append_table(store: Store, table: str, rows: pa.Table, *, run_id: str = "") -> int:
    """Append rows in the table's schema; else as `append_rows`."""
    if not rows.num_rows:
        return newest_version(store, table)
    with (
        errors_about(store, f"table {table}"),
        writable_table(store, table) as current,
    ):

        def write(properties: CommitProperties) -> None:
            write_deltalake(current, rows, mode="append", commit_properties=properties)

        append_once(store, table, current, write, {"run_id": run_id})
        return _compacted(current)


def _compacted(current: DeltaTable) -> int:
    if current.version() % _COMPACT_EVERY == 0:
        # Another process that rewrote the files at this moment is no reason to append the rows again.
        with suppress(CommitFailedError):
            current.optimize.compact()
        current.update_incremental()
    return int(current.version())
