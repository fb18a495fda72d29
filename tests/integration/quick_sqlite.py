"""SQLite that does not wait for the disk: Dagster writes hundreds of events in a run, and each would be synced.

What a killed process has written stays all the same, because the kernel has it; only a power cut would lose it.
"""

import sqlite3

from sqlalchemy import event
from sqlalchemy.engine import Engine


@event.listens_for(Engine, "connect")
def _do_not_sync(connection: object, _: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")
