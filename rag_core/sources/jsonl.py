"""JSON Lines: every line that is not blank is an object, told changed by a digest of its bytes.

A line that is not JSON is listed like any other; the parser rejects it with its reason.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import orjson

from rag_core import ids
from rag_core.errors import ObjectGoneError, SourceError
from rag_core.sources.base import SourceObject
from rag_core.sources.files import read_below, read_file
from rag_core.sources.globs import KeyFilter
from rag_core.sources.walking import file_uri, key_of, walk

_SUFFIXES = (".jsonl", ".ndjson")
_BOM = b"\xef\xbb\xbf"
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class _Line:
    """One line without its end; `data` is None where it is longer than may be read."""

    offset: int
    length: int
    digest: str
    data: bytes | None


@dataclass(frozen=True)
class JsonlRecords:
    """The records of a .jsonl file, or of all .jsonl and .ndjson files of a folder.

    The key of a record is `FILE#ID`, with the id of its `id_field` (text or a whole number). A record without an id,
    or with one that an earlier line of the file has, is named by its content: `FILE#line-DIGEST`, and from the second
    identical line on `FILE#line-DIGEST-2` and so on. So keys are unique, and do not move when other lines come or go.

    Attributes:
        name: Name of the source.
        root: Absolute path of the file or folder.
        keys: Which files of the folder are read; a file given as root is always read.
        max_bytes: What `read` reads at most.
        id_field: Field with the record's own id.
        modified_at_field: Field with an ISO 8601 time (UTC where it names no zone), or None.
    """

    name: str
    root: Path
    keys: KeyFilter
    max_bytes: int
    id_field: str
    modified_at_field: str | None

    def list(self) -> Iterator[SourceObject]:
        """List the records, file by file in order of lines; memory: a line and a short digest of each record of a file.

        Raises:
            SourceError: The root is missing, or a file or folder cannot be read.
        """
        for key, path in self._files():
            try:
                with Path(path).open("rb") as file:
                    yield from self._records(key, path, file)
            except OSError as error:
                if isinstance(error, FileNotFoundError) and path != str(self.root):
                    continue  # vanished since its folder was listed
                raise SourceError(f"source {self.name!r}: {path} cannot be read: {error.strerror}") from error

    def read(self, item: SourceObject) -> bytes:
        """Return the record's line.

        Raises:
            ObjectGoneError: The file is gone, or the line is no longer where it was listed; the next listing finds it.
            SourceError: The file cannot be read, or the line is longer than `max_bytes`.
        """
        name, offset, length = item.locator.rsplit(":", 2)
        place = {"offset": int(offset), "length": int(length)}
        if place["length"] > self.max_bytes:
            raise SourceError(f"source {self.name!r}: {item.key} is larger than max_bytes ({self.max_bytes})")
        if self.root.is_file():
            line = read_file(self.name, str(self.root), self.max_bytes, **place)
        else:
            line = read_below(self.name, self.root, name, self.max_bytes, **place)
        if ids.digest(line) != item.fingerprint:
            raise ObjectGoneError(f"source {self.name!r}: {name} changed since {item.key} was listed")
        return line

    def _files(self) -> Iterator[tuple[str, str]]:
        if self.root.is_file():
            yield key_of(self.root.name), str(self.root)
            return
        if not self.root.exists():
            raise SourceError(f"source {self.name!r}: there is no file or folder at {self.root}")
        for file in walk(self.name, self.root, self.keys):
            if file.key.lower().endswith(_SUFFIXES):
                yield file.key, file.path

    def _records(self, key: str, path: str, file: BinaryIO) -> Iterator[SourceObject]:
        uri = file_uri(path)
        key_ids = _KeyIds()
        for line in _lines(file, self.max_bytes):
            record = _parse(line.data)
            external_id = _id(record.get(self.id_field))
            local_id = key_ids.take(external_id, line.digest)
            yield SourceObject(
                source=self.name,
                key=f"{key}#{local_id}",
                uri=f"{uri}#{quote(local_id)}",
                fingerprint=line.digest,
                size_bytes=line.length,
                modified_at=_time(record.get(self.modified_at_field)) if self.modified_at_field else None,
                external_id=external_id,
                format="jsonl_record",
                locator=f"{key}:{line.offset}:{line.length}",
            )


def _lines(file: BinaryIO, max_bytes: int) -> Iterator[_Line]:
    offset = 0
    while raw := file.readline(max_bytes + 2):
        if offset == 0 and raw.startswith(_BOM):
            raw, offset = raw[len(_BOM) :], len(_BOM)
        if len(raw) > max_bytes and not raw.endswith(b"\n"):
            line = _long_line(file, raw, offset)
            offset = file.tell()
        else:
            data = raw.rstrip(b"\r\n")
            line = _Line(offset, len(data), ids.digest(data), data)
            offset += len(raw)
        if line.data is None or line.data.strip():
            yield line


def _long_line(file: BinaryIO, start: bytes, offset: int) -> _Line:
    """Pass over a line too long to hold, piece by piece; its digest is none of `read`, which refuses the line."""
    length, digests = len(start), [ids.digest(start)]
    while piece := file.readline(_PIECE_BYTES):
        length += len(piece)
        digests.append(ids.digest(piece))
        if piece.endswith(b"\n"):
            break
    return _Line(offset, length, ids.digest(*digests), None)


def _parse(line: bytes | None) -> dict[str, Any]:
    try:
        record = orjson.loads(line) if line is not None else None
    except orjson.JSONDecodeError:
        return {}
    return record if isinstance(record, dict) else {}


def _id(value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value else None


class _KeyIds:
    """Gives the records of one file ids that differ; remembers a short digest of each, because files may be long."""

    def __init__(self) -> None:
        self._taken: set[bytes] = set()
        self._repeats: dict[str, int] = {}

    def take(self, external_id: str | None, digest: str) -> str:
        """Return the record's own id, or an id from its content if it has none that is free."""
        if external_id is not None and self._is_free(external_id):
            return external_id
        while True:
            number = self._repeats[digest] = self._repeats.get(digest, 0) + 1
            candidate = f"line-{digest}" if number == 1 else f"line-{digest}-{number}"
            if self._is_free(candidate):
                return candidate

    def _is_free(self, candidate: str) -> bool:
        """Whether it was free; it no longer is."""
        mark = blake2b(candidate.encode(), digest_size=8).digest()
        free = mark not in self._taken
        self._taken.add(mark)
        return free


def _time(value: Any) -> datetime | None:
    try:
        time = datetime.fromisoformat(value)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None
