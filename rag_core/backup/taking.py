"""Taking a snapshot of the tables while runs go on, and giving up old ones.

Versions are taken from what is made last to what it is made from (the ledger of the index before the embeddings before
the chunks before the documents), so that in a snapshot nothing is newer than what it was made from: the first run after
a restoration finds at most something to do, never a row without its origin. The files of those versions stay where they
are for seven days after they are replaced, which is how long a snapshot may take.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import pyarrow.fs as pafs
from deltalake.exceptions import TableNotFoundError

from rag_core.backup.copying import copy, digest, each
from rag_core.backup.layout import (
    FileEntry,
    Snapshot,
    TableEntry,
    blob_path,
    blobs,
    read_snapshot,
    snapshot_name,
    snapshot_names,
    snapshot_path,
)
from rag_core.errors import PermanentError
from rag_core.stages.common import Progress, no_progress
from rag_core.tables.delta import SCHEMAS
from rag_core.tables.files import list_folder, remove_file, write_file
from rag_core.tables.handles import open_table
from rag_core.tables.store import Store

_TABLES: Final = (*reversed(SCHEMAS), "vectors")
# A snapshot that is being taken has written blobs that no list names yet.
_UNNAMED_BLOBS_STAY: Final = timedelta(days=2)
_NS_PER_MS: Final = 1_000_000


@dataclass(frozen=True)
class Taken:
    """A snapshot that was taken.

    Attributes:
        snapshot: What it holds.
        copied: Files that were copied; the others were in the backup.
        copied_bytes: Their size.
    """

    snapshot: Snapshot
    copied: int
    copied_bytes: int


@dataclass(frozen=True)
class _Source:
    table: str
    path: str
    size_bytes: int
    modified_ns: int


@dataclass(frozen=True)
class _Opened:
    name: str
    version: int
    rows: int
    data: tuple[_Source, ...]
    log: tuple[_Source, ...]


def take(store: Store, backup: Store, *, now: datetime, on_progress: Progress = no_progress) -> Taken:
    """Copy the tables as they are now; files that the backup has are not copied again.

    Args:
        store: Whose tables are copied.
        backup: Where to, from `backup_store`.
        now: Names the snapshot.
        on_progress: Told of files.

    Raises:
        PermanentError: The store has no table.
    """
    tables = list(_opened(store))
    if not tables:
        raise PermanentError(f"backup of {store.root}: it has no tables; is store.root right, and did rag run once?")
    there = {info.base_name: info.size for info in blobs(backup)}
    known = _known(backup, there)
    new = [file for table in tables for file in (*table.data, *table.log) if file not in known]

    def keep(file: _Source) -> tuple[_Source, str]:
        return file, _keep(store, backup, file, there)

    for file, sha256 in each(new, keep, what="files copied", on_progress=on_progress):
        known[file] = sha256
    snapshot = Snapshot(
        name=snapshot_name(now),
        created_at=now.astimezone(UTC),
        store_root=store.root,
        tables=tuple(_entry(table, known) for table in tables),
    )
    write_file(backup, snapshot_path(snapshot.name), snapshot.model_dump_json(indent=1).encode())
    return Taken(snapshot, len(new), sum(file.size_bytes for file in new))


def give_up_old(backup: Store, *, keep: int, now: datetime) -> tuple[list[str], int]:
    """Remove all but the newest snapshots, then the blobs that none of those left names.

    Returns:
        Names of the snapshots, and how many blobs were removed.
    """
    names = snapshot_names(backup)
    left, gone = names[-keep:], names[:-keep]
    needed = {sha256 for name in left for sha256 in read_snapshot(backup, name).files}
    for name in gone:
        remove_file(backup, snapshot_path(name))
    old = now - _UNNAMED_BLOBS_STAY
    removed = 0
    for info in blobs(backup):
        if info.base_name not in needed and info.mtime < old:
            remove_file(backup, blob_path(info.base_name))
            removed += 1
    return gone, removed


def _opened(store: Store) -> Iterator[_Opened]:
    for name in _TABLES:
        try:
            table = open_table(store, name)
        except TableNotFoundError:
            continue
        actions = table.get_add_actions(flatten=True)
        columns = {field: actions.column(field).to_pylist() for field in ("path", "size_bytes", "modification_time")}
        data = tuple(
            _Source(name, path, size, milliseconds * _NS_PER_MS)
            for path, size, milliseconds in zip(*columns.values(), strict=True)
        )
        rows = sum(count or 0 for count in actions.column("num_records").to_pylist())
        yield _Opened(name, table.version(), rows, data, tuple(_log_files(store, name, table.version())))


def _log_files(store: Store, table: str, version: int) -> Iterator[_Source]:
    """List commits and checkpoints up to a version; `_last_checkpoint` may name a later one, and is not needed."""
    for info in list_folder(store, f"tables/{table}/_delta_log"):
        number = info.base_name.partition(".")[0]
        if info.type == pafs.FileType.File and number.isdigit() and int(number) <= version:
            yield _Source(table, f"_delta_log/{info.base_name}", info.size, info.mtime_ns)


def _known(backup: Store, there: dict[str, int]) -> dict[_Source, str]:
    """Return the files of the newest snapshot whose blobs are there."""
    if not snapshot_names(backup):
        return {}
    newest = read_snapshot(backup)
    return {
        _Source(table.name, file.path, file.size_bytes, file.modified_ns): file.sha256
        for table in newest.tables
        for file in table.files
        if there.get(file.sha256) == file.size_bytes
    }


def _keep(store: Store, backup: Store, file: _Source, there: dict[str, int]) -> str:
    path = f"tables/{file.table}/{file.path}"
    sha256 = digest(store, path)
    if there.get(sha256) != file.size_bytes:
        copy(store, path, backup, blob_path(sha256))
    return sha256


def _entry(table: _Opened, known: dict[_Source, str]) -> TableEntry:
    def entries(files: tuple[_Source, ...]) -> tuple[FileEntry, ...]:
        return tuple(
            FileEntry(path=one.path, size_bytes=one.size_bytes, modified_ns=one.modified_ns, sha256=known[one])
            for one in files
        )

    return TableEntry(
        name=table.name, version=table.version, rows=table.rows, data=entries(table.data), log=entries(table.log)
    )
