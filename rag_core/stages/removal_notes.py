"""What is known of documents before their rows are deleted, kept in the store until the ledger is written.

Once the rows are gone nothing in Milvus tells what they were. A run that is cut off after that would have nothing to
verify with, and would write another receipt than the one it may have written already.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rag_core.index.unfindable import Sample
from rag_core.schemas import TIMESTAMP
from rag_core.stages.absence import Absence
from rag_core.tables.files import read_file, remove_file, writing
from rag_core.tables.store import Store

_SAMPLE: Final = pa.struct(
    [
        pa.field("text", pa.string()),
        pa.field("title", pa.string()),
        pa.field("language", pa.string()),
        pa.field("vector", pa.list_(pa.float32())),
    ]
)
_SCHEMA: Final = pa.schema(
    [
        pa.field("doc_id", pa.string()),
        pa.field("indexed_at", TIMESTAMP),
        pa.field("reason", pa.string()),
        pa.field("absence_seen_at", TIMESTAMP),
        pa.field("uri", pa.string()),
        pa.field("external_id", pa.string()),
        pa.field("samples", pa.list_(_SAMPLE)),
    ]
)


@dataclass(frozen=True, slots=True)
class Note:
    """One document whose rows are to be deleted.

    Attributes:
        doc_id: The document.
        indexed_at: When the newest of its rows was indexed; None if the ledger has none. Another time means that it
            came back since the note was made.
        reason: What became of it.
        absence: When that was seen, and what it was called.
        samples: Some of its chunks, in the document's order; none if too many documents were removed at once.
    """

    doc_id: str
    indexed_at: datetime | None
    reason: str
    absence: Absence
    samples: tuple[Sample, ...] = ()


class RemovalNotes:
    """The notes of a collection, a file for each partition."""

    def __init__(self, store: Store, collection: str) -> None:
        """Name the notes of a collection; nothing is read or written yet."""
        self._store = store
        self._collection = collection

    def load(self, partition_key: str) -> dict[str, Note]:
        """Read the notes that a run left that was cut off; empty if there are none."""
        content = read_file(self._store, self._path(partition_key))
        if content is None:
            return {}
        rows = pq.read_table(pa.BufferReader(content), schema=_SCHEMA).to_pylist()
        return {row["doc_id"]: _note(row) for row in rows}

    def save(self, partition_key: str, notes: Iterable[Note]) -> None:
        """Replace the notes of a partition, in one step."""
        rows = pa.Table.from_pylist([_row(note) for note in notes], schema=_SCHEMA)
        with writing(self._store, self._path(partition_key)) as sink:
            pq.write_table(rows, sink)

    def remove(self, partition_key: str) -> None:
        """Forget the notes of a partition; done again without effect."""
        remove_file(self._store, self._path(partition_key))

    def _path(self, partition_key: str) -> str:
        # Beside the journal's marks, so that both go with the collection.
        return f"work/index/{self._collection}/removals/{partition_key}.parquet"


def _row(note: Note) -> dict[str, Any]:
    return {
        "doc_id": note.doc_id,
        "indexed_at": note.indexed_at,
        "reason": note.reason,
        "absence_seen_at": note.absence.seen_at,
        "uri": note.absence.uri,
        "external_id": note.absence.external_id,
        "samples": [
            {"text": one.text, "title": one.title, "language": one.language, "vector": one.vector}
            for one in note.samples
        ],
    }


def _note(row: dict[str, Any]) -> Note:
    samples = tuple(
        Sample(row["doc_id"], one["text"], one["title"], one["language"], np.asarray(one["vector"], np.float32))
        for one in row["samples"]
    )
    absence = Absence(row["absence_seen_at"], row["uri"], row["external_id"])
    return Note(row["doc_id"], row["indexed_at"], row["reason"], absence, samples)
