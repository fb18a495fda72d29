"""A store for tests of metrics, and what a group says of it."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, write_deltalake

from rag_core.config import RagConfig
from rag_core.monitoring.group import Group
from rag_core.tables.delta import SCHEMAS, ensure_table
from rag_core.tables.store import Store

NOW = datetime(2026, 3, 1, 18, tzinfo=UTC)


def config_of(root: Path, **settings: Any) -> RagConfig:
    """Return a configuration of two sources."""
    sources = [{"name": name, "kind": "files", "root": str(root)} for name in ("handbook", "wiki")]
    return RagConfig.model_validate({"store": {"root": str(root / "store")}, "sources": sources, **settings})


def store_of(config: RagConfig) -> Store:
    return Store.of(config.store)


def say(group: Group, now: datetime = NOW) -> dict[str, float]:
    """Bring a group up to date; return its samples as `name{label values in the order of names}`."""
    group.update(now)
    return {
        sample.name + (f"{{{','.join(value for _, value in sorted(sample.labels.items()))}}}" if sample.labels else ""):
        sample.value
        for metric in group.registry.collect()
        for sample in metric.samples
        if not sample.name.endswith(("_created", "_bucket"))
    }  # fmt: skip


def row_of(table: str, **values: Any) -> dict[str, Any]:
    """Return a row of a table; what is not given is empty."""
    empty: dict[Any, Any] = {pa.string(): "", pa.int64(): 0, pa.int32(): 0, pa.float64(): 0.0}
    made = {}
    for field in SCHEMAS[table]:
        if field.nullable:
            made[field.name] = None
        elif pa.types.is_list(field.type):
            made[field.name] = []
        elif pa.types.is_timestamp(field.type):
            made[field.name] = NOW
        else:
            made[field.name] = empty[field.type]
    return {**made, **values}


def append(store: Store, table: str, rows: list[dict[str, Any]], **metadata: Any) -> None:
    """Append rows in a commit with metadata, as a stage does."""
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in metadata.items()}
    data = pa.Table.from_pylist([row_of(table, **row) for row in rows], schema=SCHEMAS[table])
    write_deltalake(
        ensure_table(store, table), data, mode="append", commit_properties=CommitProperties(custom_metadata=texts)
    )
