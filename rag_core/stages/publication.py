"""Publication: which collection is built, whether it is complete, and the manifest of what is served."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, write_deltalake

from rag_core import ids
from rag_core.config import RagConfig
from rag_core.embedding.model import ModelSpec
from rag_core.faults import crash_point
from rag_core.index import schema
from rag_core.index.client import IndexClient
from rag_core.index.publish import point_alias
from rag_core.partitions import all_partition_keys
from rag_core.schemas import PUBLISHED_INDEX
from rag_core.stages import term_statistics
from rag_core.stages.common import anti_join, count_by_partition
from rag_core.tables.delta import TableSlice, ensure_table
from rag_core.tables.store import Store

STAGE_TABLES = ("documents", "chunks", "embeddings", "index_partitions")


def collection_name(config: RagConfig, spec: ModelSpec) -> str:
    """Name the collection by all that makes two indexes incomparable: model, default chunking, index, terms, schema.

    A source's own chunking is left out: it changes that source's rows in place and must not rebuild the others.
    """
    identity = schema.index_fingerprint(
        config.index,
        dim=spec.dim,
        model_fingerprint=spec.fingerprint,
        chunker_fingerprint=ids.fingerprint(config.chunking.model_dump()),
    )
    return schema.collection_name(config.index.alias, identity)


@dataclass(frozen=True)
class Manifest:
    """What is served: one row of `published_index`."""

    collection: str
    alias: str
    published_at: datetime
    model: str
    model_fingerprint: str
    dim: int
    metric: str
    index_type: str
    search_params: str
    documents: int
    chunks: int
    partitions: int
    table_versions: str
    verdict: str


@dataclass(frozen=True)
class Publication:
    """Outcome of an attempt to publish.

    Attributes:
        manifest: The row that was (or already had been) written; None while the collection is incomplete.
        changed: Whether the manifest differs from the one before.
        incomplete: Partition key -> chunks that wait for a vector or for the index.
        version: Version of the `published_index` table.
    """

    manifest: Manifest | None
    changed: bool
    incomplete: dict[str, int]
    version: int


def incomplete_partitions(store: Store, config: RagConfig, collection: str, model_fingerprint: str) -> dict[str, int]:
    """Count, by partition, the chunks that the collection does not hold yet according to the ledger."""
    chunks = TableSlice.newest(store, "chunks").read(["partition_key", "chunk_id", "row_hash"])
    here = (pc.field("collection") == collection) & (pc.field("model_fingerprint") == model_fingerprint)
    ledger = TableSlice.newest(store, "index_partitions").read(["chunk_id", "row_hash"], here)
    waiting = count_by_partition(anti_join(chunks, ledger, ["chunk_id", "row_hash"]))
    known = set(all_partition_keys(config))
    return {key: count for key, count in sorted(waiting.items()) if key in known}


def publish(store: Store, config: RagConfig, spec: ModelSpec, client: IndexClient, *, run_id: str) -> Publication:
    """Write the manifest and point the alias, if the collection is complete.

    The manifest is written first: a crash between the two leaves the alias at the old collection, and the next attempt
    points it. An unchanged manifest commits nothing.
    """
    collection = collection_name(config, spec)
    incomplete = incomplete_partitions(store, config, collection, spec.fingerprint)
    if incomplete:
        return Publication(None, False, incomplete, ensure_table(store, "published_index").version())
    statistics_version = term_statistics.refresh(store, run_id=run_id)
    manifest = _manifest(store, config, spec, collection, statistics_version)
    last = latest_manifest(store)
    changed = last is None or _identity(last) != _identity(manifest)
    if changed:
        row = pa.Table.from_pylist([asdict(manifest)], schema=PUBLISHED_INDEX)
        write_deltalake(
            ensure_table(store, "published_index"),
            row,
            mode="append",
            commit_properties=CommitProperties(custom_metadata={"run_id": run_id, "collection": collection}),
        )
    crash_point("published_index.before_alias")
    point_alias(client, config.index.alias, collection)
    version = ensure_table(store, "published_index").version()
    return Publication(manifest if changed or last is None else last, changed, {}, version)


def latest_manifest(store: Store) -> Manifest | None:
    """Return the newest manifest, or None if nothing was ever published."""
    rows = TableSlice.newest(store, "published_index").read().sort_by([("published_at", "descending")])
    return Manifest(**rows.slice(0, 1).to_pylist()[0]) if rows.num_rows else None


def _identity(manifest: Manifest) -> tuple[object, ...]:
    values = asdict(manifest)
    return tuple(value for name, value in values.items() if name != "published_at")


def _manifest(store: Store, config: RagConfig, spec: ModelSpec, collection: str, statistics_version: int) -> Manifest:
    versions = {name: ensure_table(store, name).version() for name in STAGE_TABLES}
    versions[term_statistics.TABLE] = statistics_version
    ledger = TableSlice.newest(store, "index_partitions")
    return Manifest(
        collection=collection,
        alias=config.index.alias,
        published_at=datetime.now(UTC),
        model=spec.name,
        model_fingerprint=spec.fingerprint,
        dim=spec.dim,
        metric=config.index.metric,
        index_type=config.index.index_type,
        search_params=json.dumps(config.index.search_params, sort_keys=True),
        documents=TableSlice.newest(store, "documents").count(pc.field("status") == "ok"),
        chunks=ledger.count(pc.field("collection") == collection),
        partitions=len(all_partition_keys(config)),
        table_versions=json.dumps(versions, sort_keys=True),
        verdict="published",
    )
