"""Upkeep of Delta tables: many small changes leave many small files, and old versions leave files that nobody names."""

from dataclasses import dataclass

from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from rag_core.tables.delta import SCHEMAS
from rag_core.tables.store import Store

_TARGET_FILE_BYTES = 128 * 1024 * 1024


@dataclass(frozen=True)
class Upkeep:
    """What was done to one table; `vacuumed` counts removed files."""

    table: str
    files_before: int
    files_after: int
    vacuumed: int


def maintain(store: Store, tables: tuple[str, ...] = (*SCHEMAS, "vectors")) -> list[Upkeep]:
    """Compact, checkpoint and vacuum each table that exists.

    Readers of older versions are safe: vacuum keeps what the table's own retention (seven days) still promises, and
    that includes staged files of runs in progress.
    """
    done = []
    for name in tables:
        try:
            table = DeltaTable(store.table_uri(name), storage_options=store.storage_options or None)
        except TableNotFoundError:
            continue
        before = len(table.file_uris())
        table.optimize.compact(target_size=_TARGET_FILE_BYTES)
        table.create_checkpoint()
        removed = table.vacuum(dry_run=False)
        done.append(Upkeep(name, before, len(table.file_uris()), len(removed)))
    return done
