"""Walks a local folder: which files it has, under which keys, in which state. Nothing is opened."""

import errno
import logging
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote_from_bytes

from rag_core.errors import SourceError
from rag_core.sources.globs import KeyFilter

_log = logging.getLogger(__name__)
_AMBIGUOUS_PERCENT = re.compile(r"%(?=[0-9A-Fa-f]{2})")
_ESCAPED = re.compile(rb"%([0-9A-F]{2})")
_NAME = attrgetter("name")


def key_of(relative: str) -> str:
    """Write a relative path as a key: valid text whatever the bytes, and back by `path_of`.

    Bytes that are not UTF-8 become `%FF`; a `%` that could be mistaken for one becomes `%25`; all else stays.
    """
    text = _AMBIGUOUS_PERCENT.sub("%25", relative) if "%" in relative else relative
    if text.isascii():
        return text
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


@dataclass(frozen=True, slots=True)
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
    def modified_at(self) -> datetime | None:
        """Modification time in UTC; None if it is no time that a calendar has."""
        try:
            return datetime.fromtimestamp(self.status.st_mtime, UTC)
        except (OverflowError, ValueError, OSError):
            return None


def walk(source: str, root: Path, keys: KeyFilter) -> Iterator[LocalFile]:
    """Walk the admitted files below a root, memory bounded by one folder's names and the depth.

    A file or folder that vanishes meanwhile is left out.

    Raises:
        SourceError: The root is missing or not a folder, or a folder cannot be read.
    """
    return (file for _, file in walk_from(source, root, keys) if file is not None)


def walk_from(
    source: str, root: Path, keys: KeyFilter, after: str | None = None
) -> Iterator[tuple[str, LocalFile | None]]:
    """Walk the same files, in an order that allows to go on later: by name, those of a folder before its subfolders.

    Args:
        source: Name of the source.
        root: The folder.
        keys: Which files are admitted.
        after: A place that was given before; what comes after it is walked. None: everything.

    Yields:
        (place, file), and after the files of each folder (place, None), so that a place comes by even where hardly any
        file is admitted.

    Raises:
        SourceError: As `walk`.
    """
    top = os.path.realpath(root)
    if not os.path.isdir(top):  # noqa: PTH112 - paths stay text here: twice as fast, and any bytes survive
        raise SourceError(f"source {source!r}: there is no folder at {root}")
    before = os.stat(top)  # noqa: PTH116
    folders, skipped = _folders_after(source, top, keys, after), 0
    while folders:
        folder, start = folders.pop()
        prefix = f"{key_of(folder)}/" if folder else ""
        below: list[_Rest] = []
        for entry in _entries(source, top, folder):
            key = prefix + key_of(entry.name)
            if entry.is_dir(follow_symlinks=False):
                if not keys.prunes(key):
                    below.append(_Rest(f"{folder}/{entry.name}" if folder else entry.name))
                continue
            if start is None or entry.name <= start or not keys.admits(key):
                continue
            if entry.is_symlink() and not is_inside(entry.path, top):
                skipped += 1
                continue
            status = _status(source, entry)
            if status is not None and stat.S_ISREG(status.st_mode):
                yield key, LocalFile(key, entry.path, status)
        yield prefix or "/", None
        folders += reversed(below)
    if not _is_same_folder(top, before):
        # every folder of a share that was unmounted meanwhile would look as if it had vanished
        raise SourceError(f"source {source!r}: {root} went away while it was listed")
    if skipped:
        _log.warning("source %r: %d links that lead out of %s were left out", source, skipped, root)


def root_mark(source: str, root: Path) -> str:
    """Return what tells a folder from another that was mounted in its place. Errors: as `walk`."""
    try:
        status = os.stat(os.path.realpath(root))  # noqa: PTH116
    except OSError as error:
        raise SourceError(f"source {source!r}: there is no folder at {root}") from error
    return f"{status.st_dev:x}.{status.st_ino:x}"


def is_inside(path: str, top: str) -> bool:
    """Whether a path is below a folder, once its links are followed."""
    return os.path.realpath(path).startswith(top.rstrip("/") + "/")


class _Rest(NamedTuple):
    """A folder that is still to be walked, and the name of the file after which; None: only its subfolders."""

    folder: str
    after: str | None = ""


def _folders_after(source: str, top: str, keys: KeyFilter, after: str | None) -> list[_Rest]:
    """Return what a walk has still before it at a place; the last comes first."""
    if after is None:
        return [_Rest("")]
    place, _, name = after.rpartition("/")
    parts = path_of(place).split("/") if place else []
    rest: list[_Rest] = []
    for depth, part in enumerate(parts):
        parent = "/".join(parts[:depth])
        paths = (
            f"{parent}/{entry.name}" if parent else entry.name
            for entry in _entries(source, top, parent)
            if entry.name > part and entry.is_dir(follow_symlinks=False)
        )
        rest += reversed([_Rest(path) for path in paths if not keys.prunes(key_of(path))])
    return [*rest, _Rest("/".join(parts), path_of(name) if name else None)]


def _entries(source: str, top: str, folder: str) -> "list[os.DirEntry[str]]":
    path = f"{top.rstrip('/')}/{folder}" if folder else top
    try:
        with os.scandir(path) as entries:
            return sorted(entries, key=_NAME)
    except (FileNotFoundError, NotADirectoryError) as error:
        if not folder:
            raise SourceError(f"source {source!r}: {path} is gone") from error
        return []
    except OSError as error:
        raise SourceError(f"source {source!r}: the folder {path} cannot be read: {error.strerror}") from error


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
