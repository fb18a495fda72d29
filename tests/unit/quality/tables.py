"""Small real tables for tests: rows with sensible values, written as they are, even if no program of ours would."""

import json
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake.transaction import AddAction

from rag_core.config import FilesSource, QualityConfig, RagConfig, StoreConfig
from rag_core.partitions import source_of
from rag_core.tables.delta import LANES, SCHEMAS, TableSlice, ensure_table, partition_columns
from rag_core.tables.store import Store

LANE = "lane_one"
KEY = "handbook__00"
_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_WORDS = (
    "access",
    "badge",
    "cost",
    "desk",
    "expense",
    "form",
    "guide",
    "holiday",
    "invoice",
    "key",
    "laptop",
    "meeting",
)


def config_of(folder: Path, **quality: Any) -> RagConfig:
    return RagConfig(
        store=StoreConfig(root=str(folder)),
        sources=(
            FilesSource(kind="files", name="handbook", root=folder),
            FilesSource(kind="files", name="wiki", root=folder),
        ),
        quality=QualityConfig(**quality),
    )


def document_rows(count: int, *, key: str = KEY, **changed: Any) -> list[dict[str, Any]]:
    rows = []
    for n in range(count):
        text = f"# Note {n}\n\n" + " ".join(_WORDS[(n * 7 + i * 3) % len(_WORDS)] + str(n) for i in range(30))
        rows.append(
            {
                "partition_key": key, "doc_id": f"{key}-doc{n}", "source": source_of(key), "object_key": f"{n}.md",
                "object_id": f"{key}-doc{n}", "member": "", "external_id": None, "uri": f"file:///{n}.md",
                "title": f"Note {n}", "mime": "text/markdown", "language": "en", "text": text, "page_starts": None,
                "modified_at": _NOW, "size_bytes": len(text), "object_fingerprint": "f", "content_hash": f"c{n}",
                "text_hash": f"t{n}", "principals": ["everyone"], "access_label": "label", "status": "ok",
                "reason": None, "parser_fingerprint": "p", "doc_hash": f"d{n}", "ingested_at": _NOW, **changed,
            }
        )  # fmt: skip
    return rows


def chunk_rows(documents: Sequence[dict[str, Any]], per_document: int = 2) -> list[dict[str, Any]]:
    rows = []
    for document in documents:
        for n in range(per_document):
            text = f"{document['text'][:80]} part {n}"
            rows.append(
                {
                    "partition_key": document["partition_key"], "chunk_id": f"{document['doc_id']}-{n}",
                    "doc_id": document["doc_id"], "source": document["source"], "ordinal": n, "text": text,
                    "context": "", "heading_path": [], "char_start": n * 80, "char_end": n * 80 + 80, "page": None,
                    "token_count": len(text.split()), "text_hash": f"{document['doc_id']}-text{n}",
                    "external_id": None, "uri": document["uri"], "title": document["title"], "mime": "text/markdown",
                    "language": document["language"], "modified_at": _NOW, "access_label": "label",
                    "doc_hash": document["doc_hash"], "chunker_fingerprint": "c",
                    "row_hash": f"{document['doc_id']}-row{n}",
                }
            )  # fmt: skip
    return rows


def embedding_rows(chunks: Sequence[dict[str, Any]], dim: int = 8) -> list[dict[str, Any]]:
    vectors = np.random.default_rng(7).normal(size=(len(chunks), dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [
        {
            "partition_key": chunk["partition_key"], "chunk_id": chunk["chunk_id"], "doc_id": chunk["doc_id"],
            "text_hash": chunk["text_hash"], "model_fingerprint": "model", "vector": vector.tolist(),
        }
        for chunk, vector in zip(chunks, vectors, strict=True)
    ]  # fmt: skip


def ledger_rows(chunks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "partition_key": chunk["partition_key"], "chunk_id": chunk["chunk_id"], "doc_id": chunk["doc_id"],
            "text_hash": chunk["text_hash"], "row_hash": chunk["row_hash"], "model_fingerprint": "model",
            "indexed_at": _NOW,
        }
        for chunk in chunks
    ]  # fmt: skip


def write(store: Store, table: str, rows: Sequence[dict[str, Any]], *, lane: str = LANE) -> TableSlice:
    """Replace the partitions of the rows by these rows, past every check: nulls and wrong lengths are written too."""
    lanes = {LANES[table]: lane} if table in LANES else {}
    for key in dict.fromkeys(row.get("partition_key", "") for row in rows):
        values = {**lanes, "partition_key": key} if "partition_key" in partition_columns(table) else lanes
        clear(store, table, key, lane=lane)
        fields = [pa.field(field.name, field.type) for field in SCHEMAS[table] if field.name not in values]
        own = [{f.name: row[f.name] for f in fields} for row in rows if row.get("partition_key", "") == key]
        path = f"{uuid.uuid4().hex}.parquet"
        file = Path(store.table_uri(table)) / path
        pq.write_table(pa.Table.from_pylist(own, pa.schema(fields)), file)
        action = AddAction(path, file.stat().st_size, values, int(time.time() * 1000), True,
                           json.dumps({"numRecords": len(own)}))  # fmt: skip
        ensure_table(store, table).create_write_transaction(
            [action], mode="append", schema=SCHEMAS[table], partition_by=list(partition_columns(table)) or None
        )
    return TableSlice.newest(store, table, lane=lane if lanes else None)


def clear(store: Store, table: str, key: str = KEY, *, lane: str = LANE) -> None:
    """Remove the rows of a partition."""
    predicate = f"partition_key = '{key}'" + (f" AND {LANES[table]} = '{lane}'" if table in LANES else "")
    ensure_table(store, table).delete(predicate if "partition_key" in partition_columns(table) else None)
