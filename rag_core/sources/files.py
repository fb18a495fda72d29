"""A local folder: every regular file is an object, told changed by size and modification time.

Links are not followed out of the root, and links to folders not at all: what they point to inside the root is listed
under its own name, and a loop cannot occur.
"""

import errno
import logging
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote_from_bytes

from rag_core.errors import ObjectGoneError, SourceError
from rag_core.sources.base import SourceObject
from rag_core.sources.globs import KeyFilter

_log = logging.getLogger(__name__)
_AMBIGUOUS_PERCENT = re.compile(r"%(?=[0-9A-Fa-f]{2})")
_ESCAPED = re.compile(rb"%([0-9A-F]{2})")


def key_of(relative: str) -> str:
    """Write a relative path as a key: valid text whatever the bytes, and back by `path_of`.

    Bytes that are not UTF-8 become `%FF`; a `%` that could be mistaken for one becomes `%25`; all else stays.
    """
    text = _AMBIGUOUS_PERCENT.sub("%25", relative)
    return "".join(f"%{ord(char) - 0xDC00:02X}" if "\udc80" <= char <= "\udcff" else char for char in text)


def path_of(key: str) -> str:
    """Return the relative path of a key.

    Raises:
        SourceError: It would lead out of the folder.
    """
    relative = os.fsdecode(_ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), key.encode()))
    if "\0" in relative or any(part in ("", ".", "..") for part in relative.split("/")):
        raise SourceError(f"{key!r} is not the key of a file inside a source")
    return relative


def file_uri(path: str) -> str:
    """Return the file:// address of an absolute path."""
    return "file://" + quote_from_bytes(os.fsencode(path))


@dataclass(frozen=True)
class LocalFile:
    """A regular file found by `walk`: its key, absolute path and state."""

    key: str
    path: str
    status: os.stat_result

    @property
    def fingerprint(self) -> str:
        """Changes with size or modification time."""
        return f"{self.status.st_size}-{self.status.st_mtime_ns}"

    @property
    def modified_at(self) -> datetime:
        """Modification time in UTC."""
        return datetime.fromtimestamp(self.status.st_mtime, UTC)


def walk(source: str, root: Path, keys: KeyFilter) -> Iterator[LocalFile]:
    """Walk the admitted files below a root, memory bounded by one folder's names and the depth.

    A file or folder that vanishes meanwhile is left out.

    Raises:
        SourceError: The root is missing or not a folder, or a folder cannot be read.
    """
    top = os.path.realpath(root)
    if not os.path.isdir(top):  # noqa: PTH112 - paths stay text here: twice as fast, and any bytes survive
        raise SourceError(f"source {source!r}: there is no folder at {root}")
    before = os.stat(top)  # noqa: PTH116
    folders, skipped = [top], 0
    while folders:
        for entry in _entries(source, folders.pop(), top):
            key = key_of(entry.path[len(top.rstrip("/")) + 1 :])
            if entry.is_dir(follow_symlinks=False):
                if not keys.prunes(key):
                    folders.append(entry.path)
                continue
            if not keys.admits(key):
                continue
            if entry.is_symlink() and not _is_inside(entry.path, top):
                skipped += 1
                continue
            status = _status(source, entry)
            if status is not None and stat.S_ISREG(status.st_mode):
                yield LocalFile(key, entry.path, status)
    if not _is_same_folder(top, before):
        # every folder of a share that was unmounted meanwhile would look as if it had vanished
        raise SourceError(f"source {source!r}: {root} went away while it was listed")
    if skipped:
        _log.warning("source %r: %d links that lead out of %s were left out", source, skipped, root)


def read_below(
    source: str, root: Path, key: str, max_bytes: int, *, offset: int = 0, length: int | None = None
) -> bytes:
    """Read the file of a key below a root. Errors: as `read_file`; SourceError if it leads out of the root."""
    top = os.path.realpath(root)
    path = f"{top}/{path_of(key)}"
    if not _is_inside(path, top):
        raise SourceError(f"source {source!r}: {key!r} leads out of {root}")
    return read_file(source, path, max_bytes, offset=offset, length=length)


def read_file(source: str, path: str, max_bytes: int, *, offset: int = 0, length: int | None = None) -> bytes:
    """Read a regular file, or `length` bytes of it from `offset` (fewer where it ends before).

    Raises:
        ObjectGoneError: There is no such file any more.
        SourceError: It is no regular file, cannot be read, or holds more than `max_bytes`.
    """
    try:
        # a pipe in the place of the file would block without O_NONBLOCK
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise SourceError(f"source {source!r}: {path} is not a regular file")
            file.seek(offset)
            data = file.read(max_bytes + 1 if length is None else min(length, max_bytes + 1))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ObjectGoneError(f"source {source!r}: {path} is gone") from error
    except OSError as error:
        raise SourceError(f"source {source!r}: {path} cannot be read: {error.strerror}") from error
    if len(data) > max_bytes:
        raise SourceError(f"source {source!r}: {path} is larger than max_bytes ({max_bytes})")
    return data


@dataclass(frozen=True)
class FolderFiles:
    """The files of a local folder; the key of an object is its path inside the folder.

    Attributes:
        name: Name of the source.
        root: Absolute path of the folder.
        keys: Which files are read.
        max_bytes: What `read` reads at most.
    """

    name: str
    root: Path
    keys: KeyFilter
    max_bytes: int

    def list(self) -> Iterator[SourceObject]:
        """List the files, in no particular order. Errors: see `walk`."""
        for file in walk(self.name, self.root, self.keys):
            yield SourceObject(
                source=self.name,
                key=file.key,
                uri=file_uri(file.path),
                fingerprint=file.fingerprint,
                size_bytes=file.status.st_size,
                modified_at=file.modified_at,
            )

    def read(self, item: SourceObject) -> bytes:
        """Return the file's bytes. Errors: see `read_below`."""
        return read_below(self.name, self.root, item.key, self.max_bytes)


def _entries(source: str, folder: str, top: str) -> Iterator["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except (FileNotFoundError, NotADirectoryError) as error:
        if folder == top:
            raise SourceError(f"source {source!r}: {folder} is gone") from error
    except OSError as error:
        raise SourceError(f"source {source!r}: the folder {folder} cannot be read: {error.strerror}") from error


def _status(source: str, entry: "os.DirEntry[str]") -> os.stat_result | None:
    try:
        return entry.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):  # vanished, or a link to itself
            return None
        raise SourceError(f"source {source!r}: {entry.path} cannot be looked at: {error.strerror}") from error


def _is_same_folder(path: str, before: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), before)  # noqa: PTH116
    except OSError:
        return False


def _is_inside(path: str, top: str) -> bool:
    return os.path.realpath(path).startswith(top.rstrip("/") + "/")
