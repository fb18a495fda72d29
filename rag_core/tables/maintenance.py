"""Upkeep of Delta tables: many small changes leave many small files, and old versions leave files that nobody names."""

from collections.abc import Iterator
from dataclasses import dataclass

from deltalake.exceptions import CommitFailedError, TableNotFoundError

from rag_core.tables.delta import SCHEMAS
from rag_core.tables.handles import open_table
from rag_core.tables.store import Store
from rag_core.tables.store_errors import errors_about

_TARGET_FILE_BYTES = 128 * 1024 * 1024


@dataclass(frozen=True)
class Upkeep:
    """What was done to one table.

    Attributes:
        table: Its name.
        files_before: Files of the newest version.
        files_after: The same after compaction; not fewer if a run changed the table at that moment.
        vacuumed: Files that were removed from disk.
    """

    table: str
    files_before: int
    files_after: int
    vacuumed: int


def maintain(store: Store, tables: tuple[str, ...] = (*SCHEMAS, "vectors")) -> Iterator[Upkeep]:
    """Compact, checkpoint and vacuum each table that exists.

    Readers of older versions are safe: vacuum keeps what the table's own retention (seven days) still promises, and
    that includes staged files of runs in progress.
    """
    for name in tables:
        with errors_about(store, f"table {name}"):
            done = _maintained(store, name)
        if done is not None:
            yield done


def _maintained(store: Store, name: str) -> Upkeep | None:
    try:
        table = open_table(store, name)
    except TableNotFoundError:
        return None
    before = len(table.file_uris())
    try:
        table.optimize.compact(target_size=_TARGET_FILE_BYTES)
    except CommitFailedError:  # a run replaced one of the files meanwhile; the next upkeep finds them again
        table.update_incremental()
    table.create_checkpoint()
    # In full: what a run staged and never committed is in no version, so no log names it.
    removed = table.vacuum(dry_run=False, full=True)
    return Upkeep(name, before, len(table.file_uris()), len(removed))
