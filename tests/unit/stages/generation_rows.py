"""A store with two generations: rows with the columns that count, the others filled in."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake

from rag_core import ids
from rag_core.config import FilesSource, RagConfig, StoreConfig
from rag_core.generation import Generation, configured
from rag_core.schemas import PUBLISHED_INDEX
from rag_core.stages.publication import PUBLISHED, Manifest, write_manifest
from rag_core.tables.delta import LANES, SCHEMAS, ensure_table
from rag_core.tables.store import Store

KEY = "notes__00"
START = datetime(2026, 1, 1, tzinfo=UTC)


def config_of(folder: Path, **sections: Any) -> RagConfig:
    source = FilesSource(kind="files", name="notes", root=folder)
    store = StoreConfig(root=str(folder / "data"))
    return RagConfig.model_validate({"store": store, "sources": (source,), "buckets": 1, **sections})


def generation_of(folder: Path, **sections: Any) -> Generation:
    return configured(config_of(folder, **sections))


def put(store: Store, table: str, rows: Sequence[dict[str, Any]], lane: str = "") -> None:
    """Append rows to a table, or to a lane of it."""
    schema = SCHEMAS[table]
    placed = {LANES[table]: lane} if table in LANES else {}
    filled = [{field.name: _default(field) for field in schema} | placed | row for row in rows]
    write_deltalake(ensure_table(store, table), pa.Table.from_pylist(filled, schema=schema), mode="append")


def _default(field: pa.Field) -> Any:
    if field.name == "partition_key":
        return KEY
    if field.nullable:
        return None
    if pa.types.is_timestamp(field.type):
        return START
    if pa.types.is_list(field.type):
        return [1.0] if field.name == "vector" else []
    return 0 if pa.types.is_integer(field.type) else ""


def documents(names: Sequence[str], *, edition: str = "1", text: str = "some text") -> list[dict[str, Any]]:
    return [
        {"doc_id": name, "doc_hash": f"{name}@{edition}", "status": "ok", "source": "notes", "text": text}
        for name in names
    ]


def chunks(names: Sequence[str], *, edition: str = "1", fingerprint: str = "") -> list[dict[str, Any]]:
    return [
        {
            "chunk_id": f"{name}-0", "doc_id": name, "doc_hash": f"{name}@{edition}", "row_hash": f"{name}-0@{edition}",
            "text_hash": ids.text_hash(f"{name}@{edition}"), "source": "notes", "chunker_fingerprint": fingerprint,
        }
        for name in names
    ]  # fmt: skip


def vectors(generation: Generation, names: Sequence[str], *, edition: str = "1") -> list[dict[str, Any]]:
    fingerprint = generation.spec.fingerprint
    return [
        {
            "chunk_id": f"{name}-0", "doc_id": name, "text_hash": ids.text_hash(f"{name}@{edition}"),
            "model_fingerprint": fingerprint,
        }
        for name in names
    ]  # fmt: skip


def ledger(
    generation: Generation, names: Sequence[str], *, edition: str = "1", indexed_at: datetime = START
) -> list[dict[str, Any]]:
    fingerprint = generation.spec.fingerprint
    return [
        {
            "chunk_id": f"{name}-0", "doc_id": name, "row_hash": f"{name}-0@{edition}",
            "text_hash": ids.text_hash(f"{name}@{edition}"), "model_fingerprint": fingerprint, "indexed_at": indexed_at,
        }
        for name in names
    ]  # fmt: skip


def publish_row(
    store: Store, collection: str, settings: str, *, number: int, verdict: str = PUBLISHED, alias: str = "rag"
) -> Manifest:
    """Append a manifest, `number` hours after the start."""
    values = {field.name: _default(field) for field in PUBLISHED_INDEX}
    values |= {
        "collection": collection, "alias": alias, "published_at": START + timedelta(hours=number),
        "search_params": "{}", "table_versions": "{}", "settings": settings, "verdict": verdict,
    }  # fmt: skip
    manifest = Manifest(**values)
    write_manifest(store, manifest, run_id="r")
    return manifest
