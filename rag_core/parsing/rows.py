"""Objects to rows of the `documents` table, batch by batch, in memory that does not grow with their number."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import pyarrow as pa

from rag_core import ids
from rag_core.config import SourceConfig
from rag_core.errors import ObjectGoneError, SourceError
from rag_core.parsing.model import ParsedDocument
from rag_core.parsing.parse import too_large
from rag_core.parsing.sandbox import Parser, unparsed
from rag_core.parsing.settings import ParseSettings, parser_fingerprint
from rag_core.schemas import DOCUMENTS
from rag_core.sources.base import SourceObject

BATCH_ROWS: Final = 256
BATCH_TEXT_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class SourceDefaults:
    """What a source says for documents that do not say it themselves; picklable.

    Attributes:
        principals: Who may read a document that names nobody; empty stands for `source:NAME`.
        buckets: Number of partitions of the source.
    """

    principals: tuple[str, ...]
    buckets: int

    @classmethod
    def of(cls, source: SourceConfig, buckets: int) -> "SourceDefaults":
        """Take them from the configuration."""
        return cls(principals=source.principals, buckets=buckets)

    def principals_of(self, source: str, document: ParsedDocument) -> list[str]:
        """Return who may read the document, sorted; never nobody and never everybody by accident."""
        return sorted(set(document.principals or self.principals)) or [f"source:{source}"]


def document_row(
    document: ParsedDocument, item: SourceObject, defaults: SourceDefaults, *, fingerprint: str, ingested_at: datetime
) -> dict[str, Any]:
    """Make a row of `documents`; `doc_hash` covers exactly what later stages read of it."""
    principals = defaults.principals_of(item.source, document)
    bucket = ids.bucket_of(item.root_doc_id, defaults.buckets)
    row: dict[str, Any] = {
        "partition_key": ids.partition_key(item.source, bucket, defaults.buckets),
        "doc_id": ids.doc_id(item.source, item.key, document.member),
        "source": item.source,
        "object_key": item.key,
        "object_id": item.root_doc_id,
        "member": document.member,
        # Judgements and callers name a file by its path in the source; an attachment answers for its mail.
        "external_id": document.external_id or item.key,
        "uri": document.uri,
        "title": document.title,
        "mime": document.mime,
        "language": document.language,
        "text": document.text,
        "page_starts": document.page_starts,
        "modified_at": document.modified_at,
        "size_bytes": document.size_bytes,
        "object_fingerprint": item.fingerprint,
        "content_hash": document.content_hash,
        "text_hash": ids.text_hash(document.text),
        "principals": principals,
        "access_label": ids.access_label(principals),
        "status": document.status,
        "reason": document.reason,
        "parser_fingerprint": fingerprint,
        "ingested_at": ingested_at,
    }
    modified_at = "" if document.modified_at is None else document.modified_at.isoformat()
    row["doc_hash"] = ids.digest(
        row["text_hash"],
        document.title or "",
        document.uri,
        row["external_id"],
        document.mime,
        document.language or "",
        modified_at,
        row["access_label"],
        "" if document.page_starts is None else ",".join(map(str, document.page_starts)),
        document.status,
    )
    return row


def _documents(
    item: SourceObject, read: Callable[[SourceObject], bytes], parser: Parser, settings: ParseSettings
) -> list[ParsedDocument]:
    if item.size_bytes > settings.max_bytes:
        return [unparsed(item, None, too_large(item.size_bytes, settings.max_bytes))]
    try:
        data = read(item)
    except ObjectGoneError:
        return []
    except SourceError as error:
        if item.key in str(error):
            raise
        raise type(error)(f"{item.source}: object {item.key!r}: {error}") from error
    if len(data) > settings.max_bytes:  # it grew since it was listed
        return [unparsed(item, data, too_large(len(data), settings.max_bytes))]
    return parser.parse(item, data)


def document_batches(
    items: Iterable[SourceObject],
    *,
    read: Callable[[SourceObject], bytes],
    parser: Parser,
    settings: ParseSettings,
    defaults: SourceDefaults,
    ingested_at: datetime,
) -> Iterator[pa.RecordBatch]:
    """Read and parse objects of one source.

    An object above the size limit is rejected without being read; one that is gone yields no row.

    Args:
        items: Objects, in the order in which their rows come out.
        read: Gives an object's bytes.
        parser: A `ParserProcess`, or an `InlineParser`.
        settings: The parser's.
        defaults: Principals and buckets of the source.
        ingested_at: UTC, aware; the same for a whole run.

    Yields:
        Batches of schema `DOCUMENTS`, of at most 256 rows and about 8 MiB of text (a larger document comes alone or
        last in its batch). Documents of one object may be split over two batches.

    Raises:
        SourceError: An object cannot be read now; the message names its key.
    """
    fingerprints = {
        status: parser_fingerprint(settings, rejected=status == "rejected") for status in ("ok", "empty", "rejected")
    }
    rows: list[dict[str, Any]] = []
    text_bytes = 0
    for item in items:
        for document in _documents(item, read, parser, settings):
            fingerprint = fingerprints[document.status]
            rows.append(document_row(document, item, defaults, fingerprint=fingerprint, ingested_at=ingested_at))
            text_bytes += len(document.text.encode())
            if len(rows) >= BATCH_ROWS or text_bytes >= BATCH_TEXT_BYTES:
                yield pa.RecordBatch.from_pylist(rows, schema=DOCUMENTS)
                rows, text_bytes = [], 0
    if rows:
        yield pa.RecordBatch.from_pylist(rows, schema=DOCUMENTS)
