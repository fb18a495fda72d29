"""Importing this makes SQLite cheap for Dagster, which writes hundreds of events in a run, each in a transaction.

Nothing waits for the disk: what a killed process has written stays all the same, because the kernel has it; only a
power cut would lose it. And a database has one engine, which remembers its compiled statements; Dagster makes a new one
for each event. Connections are opened and closed as ever.
"""

import sqlite3
from functools import lru_cache
from typing import Any

from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import NullPool


@event.listens_for(Engine, "connect")
def _do_not_sync(connection: object, _: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


@lru_cache(maxsize=64)
def _engine(address: str, timeout_s: float) -> Engine:
    return create_engine(address, poolclass=NullPool, connect_args={"timeout": timeout_s})


def _one_engine(address: str, *, connect_args: dict[str, Any] | None = None, **_: object) -> Engine:
    return _engine(address, (connect_args or {}).get("timeout", 5.0))  # Python's default


for module in (sqlite_event_log, sqlite_run_storage):
    assert hasattr(module, "create_engine")
    module.create_engine = _one_engine  # type: ignore[attr-defined]
