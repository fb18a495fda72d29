"""How a backup lies in its folder or bucket: blobs named by their content, and one list of them for each snapshot.

blobs/ab/abcdef...       a file, named by its SHA-256; snapshots share the blobs that they have in common
snapshots/NAME.json      what a snapshot holds; written last, so a snapshot that is listed is complete
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import pyarrow.fs as pafs
from pydantic import BaseModel, ConfigDict, ValidationError

from rag_core.errors import PermanentError
from rag_core.tables.files import list_folder, read_file
from rag_core.tables.store import Store

_SNAPSHOTS: Final = "snapshots"
_BLOBS: Final = "blobs"
_NAME: Final = "%Y%m%dT%H%M%S.%fZ"


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class FileEntry(_Model):
    """One file of a table.

    Attributes:
        path: Relative to the table's folder.
        size_bytes: Its size.
        modified_ns: When it was written, in nanoseconds since 1970; with path and size it tells a file that is known.
        sha256: Digest of its content, which names its blob.
    """

    path: str
    size_bytes: int
    modified_ns: int
    sha256: str


class TableEntry(_Model):
    """One table at one version.

    Attributes:
        name: Of the table.
        version: Delta version.
        rows: Rows at that version.
        data: Files of that version.
        log: Files of the transaction log, up to that version.
    """

    name: str
    version: int
    rows: int
    data: tuple[FileEntry, ...]
    log: tuple[FileEntry, ...]

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """Data first: a log is restored after all that it names."""
        return (*self.data, *self.log)


class Snapshot(_Model):
    """What was in a store at one time.

    Attributes:
        name: Its time, as in the name of its file.
        created_at: UTC.
        store_root: Where the tables were.
        tables: In the order in which their versions were taken.
    """

    name: str
    created_at: datetime
    store_root: str
    tables: tuple[TableEntry, ...]

    @property
    def files(self) -> dict[str, int]:
        """Size of each blob, by digest."""
        return {file.sha256: file.size_bytes for table in self.tables for file in table.files}

    @property
    def rows(self) -> dict[str, int]:
        """Rows of each table."""
        return {table.name: table.rows for table in self.tables}


def backup_store(store: Store, root: str) -> Store:
    """Return where backups are, reached as the store is.

    Raises:
        PermanentError: The backup would lie inside the store, or the store inside the backup.
    """
    one, other = f"{store.root.rstrip('/')}/", f"{root.rstrip('/')}/"
    if one.startswith(other) or other.startswith(one):
        raise PermanentError(f"backup at {root}: it must lie outside of the store {store.root}, not in or around it")
    return replace(store, root=root)


def snapshot_name(now: datetime) -> str:
    """Name a snapshot by its time; names sort by time."""
    return now.astimezone(UTC).strftime(_NAME)


def snapshot_time(name: str) -> datetime:
    """Return when a snapshot was begun, by its name."""
    return datetime.strptime(name, _NAME).replace(tzinfo=UTC)


def blob_path(sha256: str) -> str:
    """Return where a blob is, relative to the backup."""
    return f"{_BLOBS}/{sha256[:2]}/{sha256}"


def snapshot_path(name: str) -> str:
    """Return where a snapshot's list is, relative to the backup."""
    return f"{_SNAPSHOTS}/{name}.json"


def snapshot_names(backup: Store) -> list[str]:
    """List the snapshots, the oldest first; empty if there is no backup."""
    names = (info.base_name for info in list_folder(backup, _SNAPSHOTS))
    return sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))


def read_snapshot(backup: Store, name: str = "") -> Snapshot:
    """Read a snapshot's list; without a name the newest.

    Raises:
        PermanentError: There is no such snapshot, or its list is damaged.
    """
    names = snapshot_names(backup)
    wanted = name or (names[-1] if names else "")
    if wanted not in names:
        has = ", ".join(names[-5:]) or "none"
        raise PermanentError(f"backup at {backup.root}: no snapshot {wanted or 'at all'}; it has {has}")
    try:
        return Snapshot.model_validate_json(read_file(backup, snapshot_path(wanted)) or b"")
    except ValidationError as error:
        raise PermanentError(
            f"backup at {backup.root}: the list of snapshot {wanted} cannot be read: {error}; take another snapshot"
        ) from error


def blobs(backup: Store) -> Iterator[pafs.FileInfo]:
    """List the blobs that are there, whole."""
    for info in list_folder(backup, _BLOBS, recursive=True):
        if info.type == pafs.FileType.File and "." not in info.base_name:
            yield info
