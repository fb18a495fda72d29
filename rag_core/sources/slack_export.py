"""The files of a Slack export, the same for a folder and for a ZIP file. What they mean: `rag_core.sources.slack`."""

import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

from rag_core.errors import ObjectGoneError, SourceError
from rag_core.sources.files import read_below
from rag_core.sources.globs import KeyFilter
from rag_core.sources.walking import file_uri, walk

_EVERYTHING = KeyFilter(("**",), ())
_LANDMARKS = ("channels.json", "users.json")


@dataclass(frozen=True)
class Part:
    """A file of an export: its name inside it, what changes with its content, its size and its address."""

    name: str
    fingerprint: str
    size_bytes: int
    uri: str


@dataclass(frozen=True)
class FolderExport:
    """An unpacked export."""

    source: str
    root: Path

    def parts(self) -> Iterator[Part]:
        """List the files. Errors: see `rag_core.sources.files.walk`."""
        for file in walk(self.source, self.root, _EVERYTHING):
            yield Part(file.key, file.fingerprint, file.status.st_size, file_uri(file.path))

    def read(self, name: str, max_bytes: int) -> bytes | None:
        """Return a file's bytes; None if it is not there. Errors: see `rag_core.sources.files.read_below`."""
        try:
            return read_below(self.source, self.root, name, max_bytes)
        except ObjectGoneError:
            return None

    def state(self, names: Sequence[str]) -> tuple[object, ...]:
        """Return a value that changes with the named files."""
        paths = [self.root / name for name in names]
        return tuple(_state(path) if path.is_file() else None for path in paths)


@dataclass(frozen=True)
class ZipExport:
    """An export as Slack delivers it, or packed again inside one more folder."""

    source: str
    root: Path

    def parts(self) -> Iterator[Part]:
        """List the files.

        Raises:
            SourceError: The ZIP file is damaged or cannot be read.
        """
        archive, prefix = self._archive()
        uri = file_uri(str(self.root))
        for info in archive.infolist():
            if info.filename.startswith(prefix) and not info.is_dir():
                name = info.filename.removeprefix(prefix)
                yield Part(name, f"{info.file_size}-{info.CRC:08x}", info.file_size, f"{uri}#{quote(name)}")

    def read(self, name: str, max_bytes: int) -> bytes | None:
        """Return a file's bytes; None if it is not there.

        Raises:
            SourceError: It is damaged, encrypted, or unpacks to more than `max_bytes`.
        """
        archive, prefix = self._archive()
        try:
            with archive.open(prefix + name) as file:
                data = file.read(max_bytes + 1)  # the size that the directory claims may be a lie
        except KeyError:
            return None
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
            raise SourceError(f"source {self.source!r}: {name} in {self.root} cannot be unpacked: {error}") from error
        if len(data) > max_bytes:
            raise SourceError(f"source {self.source!r}: {name} in {self.root} is larger than max_bytes ({max_bytes})")
        return data

    def state(self, names: Sequence[str]) -> tuple[object, ...]:
        """Return a value that changes with the export."""
        return _state(self.root)

    def _archive(self) -> tuple[zipfile.ZipFile, str]:
        try:
            # a forked process must not share the file position of its parent
            return _open_zip(self.root, (os.getpid(), *_state(self.root)))
        except zipfile.BadZipFile as error:
            raise SourceError(f"source {self.source!r}: {self.root} is not a readable ZIP file: {error}") from error
        except OSError as error:
            raise SourceError(f"source {self.source!r}: {self.root} cannot be read: {error.strerror}") from error


Export = FolderExport | ZipExport


def open_export(source: str, root: Path) -> Export:
    """Return the export at a path.

    Raises:
        ObjectGoneError: There is nothing at the path.
    """
    if root.is_dir():
        return FolderExport(source, root)
    if root.exists():
        return ZipExport(source, root)
    raise ObjectGoneError(f"source {source!r}: there is no folder or ZIP file at {root}")


def _state(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


@lru_cache(maxsize=2)  # the directory of a large export takes longer to read than a day; closed when it is dropped
def _open_zip(path: Path, state: tuple[int, ...]) -> tuple[zipfile.ZipFile, str]:
    """Open a ZIP file; the prefix is the folder inside it that holds the export, `` or `NAME/`."""
    archive = zipfile.ZipFile(path)
    found = [name for name in archive.namelist() if name.rpartition("/")[2] in _LANDMARKS]
    shortest = min(found, key=len, default="")
    return archive, shortest[: shortest.rfind("/") + 1]
