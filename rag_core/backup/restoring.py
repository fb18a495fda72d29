"""Bringing a snapshot back into an empty store, and checking that a backup can be brought back."""

import json
from collections.abc import Iterator
from typing import Final

from rag_core.backup.copying import copy, digest, each
from rag_core.backup.layout import FileEntry, Snapshot, TableEntry, blob_path
from rag_core.errors import PermanentError
from rag_core.stages.common import Progress, no_progress
from rag_core.tables.files import list_folder, read_file, remove_file, write_file
from rag_core.tables.handles import open_table
from rag_core.tables.store import Store

# Says which snapshot is being brought back; as long as it is there, the store is not whole.
_MARK: Final = "work/restoring.json"


def check(backup: Store, snapshot: Snapshot, *, on_progress: Progress = no_progress) -> list[str]:
    """Read every blob of a snapshot.

    Returns:
        What is wrong, a sentence for each file; empty if the snapshot can be brought back whole.
    """

    def wrong(sha256: str) -> str | None:
        try:
            found = digest(backup, blob_path(sha256))
        except FileNotFoundError:
            return f"{names[sha256]}: its blob {blob_path(sha256)} is not there"
        return None if found == sha256 else f"{names[sha256]}: its blob {blob_path(sha256)} has other content"

    names = {file.sha256: f"{table.name}/{file.path}" for table in snapshot.tables for file in table.files}
    found = each(sorted(names), wrong, what="files read", on_progress=on_progress)
    return sorted(sentence for sentence in found if sentence)


def restore(backup: Store, snapshot: Snapshot, store: Store, *, on_progress: Progress = no_progress) -> None:
    """Write a snapshot's tables into an empty store, and verify them; cut off, the same call goes on.

    Args:
        backup: From `backup_store`.
        snapshot: From `read_snapshot`.
        store: Has no tables, or those of a restoration of this snapshot that was cut off.
        on_progress: Told of files.

    Raises:
        PermanentError: The store has tables, or a blob is missing or damaged; nothing was deleted.
    """
    _require_empty(store, snapshot)
    write_file(store, _MARK, json.dumps({"snapshot": snapshot.name, "backup": backup.root}).encode())
    data = [(table, file) for table in snapshot.tables for file in table.data]
    log = [(table, file) for table in snapshot.tables for file in table.log]

    def bring(item: tuple[TableEntry, FileEntry]) -> None:
        _bring(backup, *item, store)

    # A table is one that others see as soon as it has a log: all data first.
    for part, what in ((data, "files restored"), (log, "log files restored")):
        for _ in each(part, bring, what=what, on_progress=on_progress):
            pass
    if problems := list(_differences(store, snapshot)):
        raise PermanentError(f"restoration of {snapshot.name} into {store.root}: " + "; ".join(problems))
    remove_file(store, _MARK)


def _require_empty(store: Store, snapshot: Snapshot) -> None:
    mark = read_file(store, _MARK)
    if mark is not None:
        under_way = str(json.loads(mark)["snapshot"])
        if under_way == snapshot.name:
            return
        raise PermanentError(
            f"store {store.root}: the restoration of snapshot {under_way} was cut off there; end it, or empty the store"
        )
    if tables := sorted(info.base_name for info in list_folder(store, "tables")):
        raise PermanentError(
            f"store {store.root} has tables ({', '.join(tables[:4])}, ...); a snapshot is restored into an empty "
            f"store: move its folder `tables` away, or set store.root to a new place"
        )


def _bring(backup: Store, table: TableEntry, file: FileEntry, store: Store) -> None:
    path = f"tables/{table.name}/{file.path}"
    filesystem, root = store.filesystem()
    there = filesystem.get_file_info(f"{root}/{path}")
    if there.size == file.size_bytes and digest(store, path) == file.sha256:
        return  # the restoration was cut off, and this is from before
    try:
        found = copy(backup, blob_path(file.sha256), store, path)
    except FileNotFoundError as error:
        raise PermanentError(
            f"backup at {backup.root}: the blob of {table.name}/{file.path} is not there; take an older snapshot"
        ) from error
    if found != file.sha256:
        remove_file(store, path)
        raise PermanentError(
            f"backup at {backup.root}: the blob of {table.name}/{file.path} is damaged; take an older snapshot"
        )


def _differences(store: Store, snapshot: Snapshot) -> Iterator[str]:
    """Compare the tables, as delta-rs reads them, with the snapshot's list."""
    for wanted in snapshot.tables:
        table = open_table(store, wanted.name)
        actions = table.get_add_actions(flatten=True)
        files, rows = set(actions.column("path").to_pylist()), sum(actions.column("num_records").to_pylist())
        if table.version() != wanted.version:
            yield f"table {wanted.name} has version {table.version()}, expected {wanted.version}"
        if files != {file.path for file in wanted.data} or rows != wanted.rows:
            yield (
                f"table {wanted.name} has {len(files)} files and {rows} rows, "
                f"expected {len(wanted.data)} and {wanted.rows}"
            )
