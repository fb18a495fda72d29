"""A table that is looked at again and again: opened once, then only the commits that are new are read."""

import time
from typing import Final

from deltalake import DeltaTable

from rag_core.tables.delta import ensure_table
from rag_core.tables.store import Store
from rag_core.tables.store_errors import errors_about

# A table that was moved away and made anew has a log of its own, in which the kept one would wait for its next version
# for ever. Opening costs 4 to 20 ms, an update without news less than one.
_REOPEN_S: Final = 30.0


class FollowedTable:
    """The newest version of a table, each time it is asked for. Not for use by several threads at once."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name
        self._table: DeltaTable | None = None
        self._opened_at = 0.0

    def newest(self) -> DeltaTable:
        """Return the table at its newest version, created empty if it does not exist yet.

        Raises:
            PermanentError: An earlier version of the program wrote it, without columns that are needed now.
        """
        now = time.monotonic()
        if self._table is None or now - self._opened_at > _REOPEN_S:
            self._table = None  # should opening fail, the next look opens again
            self._table = ensure_table(self._store, self._name)
            self._opened_at = now
        else:
            with errors_about(self._store, f"table {self._name}"):
                self._table.update_incremental()
        return self._table


def state_of(table: DeltaTable) -> tuple[str, int]:
    """Return what tells one state of a table from every other: the table's own id and the version."""
    return str(table.metadata().id), int(table.version())
