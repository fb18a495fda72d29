"""Rows of `chunks` from rows of `documents`: what the chunks stage runs, in-process or as Spark's `mapInArrow`."""

import logging
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from rag_core import ids
from rag_core.chunking.chunker import Chunker
from rag_core.chunking.model import Chunk, embedded_text
from rag_core.tables.delta import row_schema

_ROWS: Final = row_schema("chunks")

logger = logging.getLogger(__name__)

_BATCH_ROWS: Final = 4_096
_BATCH_CHARS: Final = 8 * 1024 * 1024

# Copied from a document to each of its chunks, under the same name.
_COPIED: Final = (
    "partition_key", "doc_id", "source", "external_id", "uri", "title", "mime", "language", "modified_at",
    "access_label", "doc_hash",
)  # fmt: skip
_INDEXED: Final = ("external_id", "uri", "title", "mime", "language", "modified_at", "access_label")


def chunk_batches(
    documents: Iterable[pa.RecordBatch], chunker_of: Callable[[str], Chunker]
) -> Iterator[pa.RecordBatch]:
    """Cut documents into chunks.

    Args:
        documents: Batches with the columns of `schemas.DOCUMENTS`; rows whose status is not ok are passed over.
        chunker_of: Returns the chunker of a source, by its name; called once per source.

    Yields:
        Batches of `schemas.CHUNKS` without its lane, of about 4,096 rows or 8 Mi characters at most (more only where
        one document has more); chunks in document order, documents in the order given.
    """
    chunkers: dict[str, Chunker] = {}
    rows = _Rows()
    for batch in documents:
        for document in _ok_documents(batch):
            source = document["source"]
            if source not in chunkers:
                chunkers[source] = chunker_of(source)
            rows.extend(document, chunkers[source])
            if rows.full:
                yield rows.take()
    if rows.count:
        yield rows.take()


def page_of(page_starts: Sequence[int] | None, position: int) -> int | None:
    """Return the page, from 1, that holds a character position; None where the document has no pages."""
    return max(bisect_right(page_starts, position), 1) if page_starts else None


def _ok_documents(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Yield the ok rows; modified_at in microseconds, so that no time zone is looked up for each row."""
    columns = {name: batch.column(name) for name in (*_COPIED, "page_starts", "status")}
    columns["modified_at"] = columns["modified_at"].cast(pa.int64())
    lists = {name: column.to_pylist() for name, column in columns.items()}
    texts = batch.column("text")
    for i, status in enumerate(lists["status"]):
        if status == "ok":
            # One text at a time: a batch's texts together may be large.
            yield {name: values[i] for name, values in lists.items()} | {"text": texts[i].as_py()}


class _Rows:
    """Chunks gathered by column."""

    def __init__(self) -> None:
        self._columns: dict[str, list[Any]] = {name: [] for name in _ROWS.names}
        self._chars = 0

    @property
    def count(self) -> int:
        return len(self._columns["chunk_id"])

    @property
    def full(self) -> bool:
        return self.count >= _BATCH_ROWS or self._chars >= _BATCH_CHARS

    def take(self) -> pa.RecordBatch:
        """Return the gathered rows, in batch form, and forget them."""
        arrays = [pa.array(self._columns[field.name], type=field.type) for field in _ROWS]
        self.__init__()  # type: ignore[misc]
        return pa.RecordBatch.from_arrays(arrays, schema=_ROWS)

    def extend(self, document: dict[str, Any], chunker: Chunker) -> None:
        """Add the chunks of one document."""
        chunks = chunker.split(document["text"])
        if not chunks:
            logger.warning("document %s of %s is ok but blank: no chunks", document["uri"], document["source"])
            return
        hashes = [ids.text_hash(embedded_text(chunk.context, chunk.text)) for chunk in chunks]
        pages = [page_of(document["page_starts"], chunk.char_start) for chunk in chunks]
        shared = [str(document[name]) if document[name] is not None else "" for name in _INDEXED]
        columns = self._columns
        for name in _COPIED:
            columns[name].extend([document[name]] * len(chunks))
        for name, position in _FROM_CHUNK.items():
            columns[name].extend([chunk[position] for chunk in chunks])
        columns["chunk_id"].extend(_chunk_ids(document, hashes))
        columns["text_hash"].extend(hashes)
        columns["page"].extend(pages)
        columns["chunker_fingerprint"].extend([chunker.fingerprint] * len(chunks))
        columns["row_hash"].extend(
            _row_hash(chunk, text_hash, page, shared)
            for chunk, text_hash, page in zip(chunks, hashes, pages, strict=True)
        )
        self._chars += sum(len(chunk.text) for chunk in chunks)


_FROM_CHUNK: Final = {name: Chunk._fields.index(name) for name in Chunk._fields}


def _chunk_ids(document: Mapping[str, Any], hashes: Sequence[str]) -> Iterator[str]:
    place = f"{document['partition_key']}/{document['doc_id']}"
    seen: Counter[str] = Counter()
    for text_hash in hashes:
        yield ids.chunk_id(place, text_hash, seen[text_hash])
        seen[text_hash] += 1


def _row_hash(chunk: Chunk, text_hash: str, page: int | None, shared: Sequence[str]) -> str:
    """Digest what the index stores: a row with another hash must be written again."""
    place = f"{chunk.ordinal},{chunk.char_start},{chunk.char_end},{'' if page is None else page}"
    return ids.digest(text_hash, place, str(len(shared)), *shared, *chunk.heading_path)
