"""Commits whose answer was lost: whether they were made is looked up by a mark in them, so none is made twice.

A PUT of a commit can arrive while its answer does not. The client then either gives up, or asks again and is refused
by its own commit; delta-rs takes that for another writer's, and fails, or commits a second time.
"""

import random
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Final

from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError

from rag_core.errors import StoreError
from rag_core.tables.files import read_file
from rag_core.tables.store import Store

MARK: Final = "rag.commit_id"
"""Name of the mark in a commit's metadata."""

_TRIES: Final = 16  # of an append beside other writers: each failure is another's success
_WAIT_S: Final = 0.05


def new_mark() -> str:
    """Return a mark for one commit."""
    return uuid.uuid4().hex


def has_landed(store: Store, table: str, since: int, mark: str) -> bool:
    """Tell whether a commit is in the log of a table, by its mark.

    Args:
        store: Holds the table.
        table: Its name.
        since: Version before it; -1 if the table was not there.
        mark: In its metadata, as MARK.

    Raises:
        StoreError: That cannot be told now. The commit's files must stay: they may be part of the table.
    """
    version = since + 1
    try:
        while (entry := read_file(store, f"tables/{table}/_delta_log/{version:020}.json")) is not None:
            if mark.encode() in entry:
                return True
            version += 1
    except StoreError as error:
        raise type(error)(f"table {table}: whether a commit was made is not known ({error})") from error
    return False


def append_once(
    store: Store,
    table: str,
    opened: DeltaTable | None,
    write: Callable[[CommitProperties], object],
    metadata: Mapping[str, str],
) -> None:
    """Append to a table in one commit: not twice where an answer was lost, and again where another writer was faster.

    Args:
        store: Holds the table.
        table: Its name.
        opened: The table as it was just read, which `write` writes to; None if it is not there yet.
        write: Writes the rows as a new version, with the properties that it is given.
        metadata: Of the commit.

    Raises:
        CommitFailedError: Other writers were faster every time.
        StoreError: Whether it was committed is not known.
    """
    mark = new_mark()
    # delta-rs itself would commit a second time behind a first that it does not know to be its own.
    properties = CommitProperties(custom_metadata={**metadata, MARK: mark}, max_commit_retries=0)
    for left in reversed(range(_TRIES)):
        since = -1 if opened is None else int(opened.version())
        try:
            write(properties)
        except (CommitFailedError, DeltaError, OSError) as error:
            if has_landed(store, table, since, mark):
                if opened is not None:
                    opened.update_incremental()
                return
            if not left or not (isinstance(error, CommitFailedError) or "already exists" in str(error).lower()):
                raise
            time.sleep(random.uniform(0, _WAIT_S * (_TRIES - left)))
            if opened is not None:
                opened.update_incremental()
        else:
            return
