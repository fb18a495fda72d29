"""What every source offers: a listing of objects and their bytes. One module per kind implements it.

An *object* is the unit of listing and parsing (a file, a line of a JSONL file, a channel's day of a Slack export). It
yields one document, or several that stay together in its partition (a mail and its attachments).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, Protocol, runtime_checkable

import pyarrow as pa

from rag_core import ids
from rag_core.schemas import TIMESTAMP

ObjectFormat = Literal["file", "jsonl_record", "slack_day"]


@dataclass(frozen=True, slots=True)
class SourceObject:
    """One listed object.

    Attributes:
        source: Name of the source.
        key: Stable key inside the source, with `/` between folders; identifies the document.
        uri: Where a person finds it.
        fingerprint: Changes when the content may have changed: etag, or size and mtime, or a content digest.
        size_bytes: Size of the object's bytes.
        modified_at: UTC, aware; None where the source does not know.
        external_id: The source's own id, where it has one.
        format: How the bytes are to be read: a `file` is told by its content; the others are made by their source.
        locator: What the source needs beyond `key` to read the bytes (offset and length in a file); may be empty.
    """

    source: str
    key: str
    uri: str
    fingerprint: str
    size_bytes: int
    modified_at: datetime | None = None
    external_id: str | None = None
    format: ObjectFormat = "file"
    locator: str = ""

    @property
    def root_doc_id(self) -> str:
        """Id of the object's own document; it decides the bucket of all documents of the object."""
        return ids.doc_id(self.source, self.key)


OBJECTS: Final = pa.schema(
    [
        pa.field("partition_key", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("fingerprint", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("modified_at", TIMESTAMP),
        pa.field("external_id", pa.string()),
        pa.field("format", pa.string(), nullable=False),
        pa.field("locator", pa.string(), nullable=False),
    ]
)


class Source(Protocol):
    """A configured source; cheap to make, opens nothing until it is used, and can be pickled to Spark executors."""

    @property
    def name(self) -> str:
        """Name of the source in the configuration."""
        ...

    def list(self) -> Iterator[SourceObject]:
        """List every object that include and exclude admit, in no particular order.

        Objects above the size limit are listed too: they become `rejected` documents without being read.

        Raises:
            SourceError: The root is missing or cannot be listed; never an empty listing instead.
        """
        ...

    def read(self, item: SourceObject) -> bytes:
        """Return the object's bytes.

        Raises:
            ObjectGoneError: The object is no longer there.
            SourceError: It cannot be read (permission, network); the message says why.
        """
        ...


class ListedObject(Protocol):
    """What tells whether an object changed; a `SourceObject` has it."""

    @property
    def key(self) -> str:
        """See `SourceObject`."""
        ...

    @property
    def fingerprint(self) -> str:
        """See `SourceObject`."""
        ...

    @property
    def modified_at(self) -> datetime | None:
        """See `SourceObject`."""
        ...


@runtime_checkable
class ResumableSource(Protocol):
    """A source whose listing can be interrupted, and continued later and by another process."""

    def list_page(self, position: str | None) -> tuple[Sequence[ListedObject], str | None]:
        """List a part of the objects, those and only those that `list` gives: some seconds' work at most.

        Args:
            position: None for the beginning, else what the page before returned; text that can be stored.

        Returns:
            The objects of the page, perhaps none, and where the next one begins; None: this was the last. All pages
            together have each object once, as long as it is there all the time.

        Raises:
            SourceError: As for `list`; or the listing cannot be continued from there and must begin again.
        """
        ...
