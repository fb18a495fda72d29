"""A local folder: every regular file is an object, told changed by size and modification time.

Links are not followed out of the root, and links to folders not at all: what they point to inside the root is listed
under its own name, and a loop cannot occur.
"""

import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rag_core.errors import ObjectGoneError, SourceError
from rag_core.sources.base import SourceObject
from rag_core.sources.globs import KeyFilter
from rag_core.sources.walking import LocalFile, file_uri, is_inside, path_of, root_mark, walk, walk_from

_PAGE_FILES: Final = 2_000
_PAGE_S: Final = 1.0

Page = tuple[list[LocalFile], str | None]


def read_below(
    source: str, root: Path, key: str, max_bytes: int, *, offset: int = 0, length: int | None = None
) -> bytes:
    """Read the file of a key below a root. Errors: as `read_file`; SourceError if it leads out of the root."""
    top = os.path.realpath(root)
    path = f"{top}/{path_of(key)}"
    if not is_inside(path, top):
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
    # The walk behind the last page: whoever asks for the next one at once spares looking for the place again.
    _open: dict[str, Iterator[tuple[str, LocalFile | None]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

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

    def list_page(self, position: str | None) -> Page:
        """List the files after a position, folder by folder, of at most `_PAGE_FILES` and a second's work.

        Raises:
            SourceError: As for `list`; or another folder is in the place of the one that was begun with.
        """
        mark = root_mark(self.name, self.root)
        began_with, _, place = position.partition(":") if position else (mark, "", "")
        if began_with != mark:
            raise SourceError(f"source {self.name!r}: {self.root} went away while it was listed")
        steps = self._open.pop(position or "", None) or walk_from(self.name, self.root, self.keys, place or None)
        files, until = [], time.monotonic() + _PAGE_S
        for reached, file in steps:
            if file is not None:
                files.append(file)
            if len(files) >= _PAGE_FILES or time.monotonic() > until:
                next_position = f"{mark}:{reached}"
                self._open.clear()
                self._open[next_position] = steps
                return files, next_position
        return files, None

    def read(self, item: SourceObject) -> bytes:
        """Return the file's bytes. Errors: see `read_below`."""
        return read_below(self.name, self.root, item.key, self.max_bytes)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}
