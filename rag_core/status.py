"""What is known of each source: documents by status, chunks, vectors, and how far the index is behind."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rag_core.config import RagConfig
from rag_core.partitions import partition_keys_of
from rag_core.stages.publication import latest_manifest
from rag_core.tables.delta import TableSlice
from rag_core.tables.store import Store


@dataclass(frozen=True)
class SourceStatus:
    """Counts of one source, in rows; times in UTC.

    `last_change_seen` is the newest modification time among its documents, `last_indexed` when a row of it was last
    verified in the index.
    """

    source: str
    documents: int
    ok: int
    empty: int
    rejected: int
    chunks: int
    vectors: int
    indexed: int
    last_change_seen: datetime | None
    last_indexed: datetime | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


def source_status(store: Store, config: RagConfig) -> list[SourceStatus]:
    """Count each configured source's rows in every table; of chunks, vectors and ledger those of the served index."""
    manifest = latest_manifest(store)
    lanes = json.loads(manifest.settings) if manifest else {}
    collection = manifest.collection if manifest else None
    return [_status(store, config, source.name, lanes, collection) for source in config.sources]


def _status(
    store: Store, config: RagConfig, name: str, lanes: Mapping[str, str], collection: str | None
) -> SourceStatus:
    keys = partition_keys_of(config, name)
    documents = TableSlice.newest(store, "documents", keys).read(["status", "modified_at"])
    indexed = TableSlice.newest(store, "index_partitions", keys, lane=collection).read(["indexed_at"])
    by_status = {row["values"]: row["counts"] for row in pc.value_counts(documents["status"]).to_pylist()}
    return SourceStatus(
        source=name,
        documents=documents.num_rows,
        ok=by_status.get("ok", 0),
        empty=by_status.get("empty", 0),
        rejected=by_status.get("rejected", 0),
        chunks=TableSlice.newest(store, "chunks", keys, lane=lanes.get("chunk_lane")).count(),
        vectors=TableSlice.newest(store, "embeddings", keys, lane=lanes.get("embedding_lane")).count(),
        indexed=indexed.num_rows,
        last_change_seen=_latest(documents["modified_at"]),
        last_indexed=_latest(indexed["indexed_at"]),
    )


def _latest(column: pa.ChunkedArray) -> datetime | None:
    value: datetime | None = pc.max(column).as_py()
    return value
