"""Opened tables of this process: opened once, then only the commits that are new are read.

A run asks for versions and slices of the same tables hundreds of times. Opening one reads its log from the last
checkpoint, some 7 ms on local disk and as many requests as there are commits on S3; an update without news takes half
a millisecond, or one request.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from cachetools import LRUCache
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from rag_core.tables.store import Store
from rag_core.tables.store_errors import errors_about

# A table that was moved away and made anew has a log of its own, in which the kept one would wait for its next version
# for ever. On local disk its first commit tells at once.
_REOPEN_S: Final = 30.0
_KEPT: Final = 64

_Key = tuple[Store, str, tuple[int, int] | None]


@dataclass
class _Handle:
    lock: threading.Lock = field(default_factory=threading.Lock)
    table: DeltaTable | None = None
    opened_at: float = 0.0

    def follow(self, make: Callable[[], DeltaTable]) -> None:
        """Bring the table to its newest version, opening it where need be."""
        now = time.monotonic()
        if self.table is not None and now - self.opened_at <= _REOPEN_S:
            try:
                self.table.update_incremental()
                return
            except (DeltaError, TableNotFoundError, OSError):  # its log is not the one that was opened, or S3 failed
                pass
        self.table = None  # should opening fail, the next one opens again
        self.table, self.opened_at = make(), now

    @contextmanager
    def forgotten_if_it_fails(self) -> Iterator[DeltaTable]:
        """Give the table; after an error it is opened anew."""
        try:
            yield self.table
        except BaseException:
            self.table = None
            raise


class Handles:
    """The opened tables. Safe to use from several threads: each table is used by one at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._handles: LRUCache[_Key, _Handle] = LRUCache(_KEPT)

    @contextmanager
    def newest(self, store: Store, name: str, make: Callable[[], DeltaTable]) -> Iterator[DeltaTable]:
        """Give a table at its newest version; it must not be used after the block, nor written to.

        Args:
            store: Holds the table.
            name: Its name.
            make: Opens it, or creates it.
        """
        with self._handle(store, name) as handle:
            handle.follow(make)
            yield handle.table

    @contextmanager
    def at(self, store: Store, name: str, version: int) -> Iterator[DeltaTable]:
        """Give a table at a version; it must not be used after the block, nor written to."""
        with self._handle(store, name) as handle:
            if handle.table is not None and handle.table.version() == version:
                yield handle.table
                return
        yield open_table(store, name, version)

    @contextmanager
    def writing(self, store: Store, name: str, make: Callable[[], DeltaTable]) -> Iterator[DeltaTable]:
        """Give a table at its newest version, to be written to in the block; others wait for its end."""
        with self._handle(store, name) as handle:
            handle.follow(make)
            with handle.forgotten_if_it_fails() as table:
                yield table

    @contextmanager
    def writing_at(self, store: Store, name: str, version: int) -> Iterator[DeltaTable]:
        """Give a table at a version, to be written to in the block; others wait for its end."""
        with self._handle(store, name) as handle:
            if handle.table is None or handle.table.version() != version:
                handle.table, handle.opened_at = (
                    open_table(store, name, version),
                    0.0,
                )  # to be opened anew when followed
            with handle.forgotten_if_it_fails() as table:
                yield table

    @contextmanager
    def _handle(self, store: Store, name: str) -> Iterator[_Handle]:
        key = (store, name, first := _first_commit(store, name))
        with self._lock:
            # Of a table that is not there nothing is kept: it may be made, and be gone again, before the next look.
            handle = _Handle() if first is None else self._handles.setdefault(key, _Handle())
        with handle.lock:
            yield handle


def open_table(store: Store, name: str, version: int | None = None) -> DeltaTable:
    """Open a table that nobody else uses, at a version or the newest.

    Raises:
        TableNotFoundError: There is none.
        StoreError: S3 fails; StoreRefusedError if that will not pass.
    """
    with errors_about(store, f"table {name}"):
        return DeltaTable(store.table_uri(name), version=version, storage_options=store.storage_options or None)


def _first_commit(store: Store, name: str) -> tuple[int, int] | None:
    """Return what tells a table on local disk from one that took its place; None if there is no table.

    The first commit stays for a month; one that is gone is no table for this purpose.
    """
    if not store.is_local:
        return 0, 0
    try:
        found = os.stat(f"{store.root}/tables/{name}/_delta_log/{0:020}.json")  # noqa: PTH116 - called for each slice
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


HANDLES = Handles()


def _forget() -> None:
    """Begin anew in a forked child: a lock may have been held, and delta-rs's threads are not there."""
    global HANDLES  # noqa: PLW0603 - one set for each process
    HANDLES = Handles()


os.register_at_fork(after_in_child=_forget)
