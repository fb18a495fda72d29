"""Partitions that the configuration no longer has: a source was taken out, or has fewer buckets.

What was indexed of them must not be found any more. It goes from the index first and from the tables last, so that a
crash in between is noticed and the rest done by the next run. Vectors stay in the cache: a source that comes
back calls no model.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import pyarrow.compute as pc
from deltalake import CommitProperties

from rag_core.caching.invalidation import caches_of
from rag_core.config import RagConfig
from rag_core.errors import TransientError
from rag_core.freshness.look_files import LookFiles
from rag_core.index.client import IndexClient
from rag_core.partitions import all_partition_keys, source_of
from rag_core.stages.absence import Absence
from rag_core.stages.deletions import CacheInvalidation, Removals, chunks_by_document
from rag_core.tables.delta import PARTITIONED, TableSlice, ensure_table, lanes_of, partition_values
from rag_core.tables.store import Store

# The documents name the partition to the end: they are what an interrupted retirement is found by.
_ORDER = ("index_partitions", "embeddings", "chunks", "documents")
assert set(_ORDER) == PARTITIONED


def retired_partitions(store: Store, config: RagConfig) -> list[str]:
    """Return the partition keys that tables hold and the configuration does not have, sorted."""
    held = {key for name in _ORDER for key in partition_values(store, name, "partition_key")}
    return sorted(held.difference(all_partition_keys(config)))


def retire(store: Store, config: RagConfig, client: IndexClient, *, run_id: str) -> list[str]:
    """Remove partitions that the configuration does not have from every collection of the ledger and every table.

    The documents of a source that was taken out get receipts. Those of a source that has another number of buckets now
    get none: they are not gone, they are indexed in their new partitions.

    Returns:
        The partitions that were removed.

    Raises:
        TransientError: A collection still holds rows of one of them, something of their documents is still found, or
            the cache of the service was not told of them; nothing was removed from the tables.
    """
    keys = retired_partitions(store, config)
    if not keys:
        return []
    configured = {source.name for source in config.sources}
    taken_out = {key: _documents(store, key) for key in keys if source_of(key) not in configured}
    caches = caches_of(config, store)
    done = [
        _drop(store, client, collection, keys, taken_out, caches, run_id=run_id)
        for collection in lanes_of(store, "index_partitions")
        if client.has_collection(collection)
    ]
    quoted = ", ".join(f"'{key}'" for key in keys)  # keys are letters, digits and underscores
    for name in _ORDER:
        properties = CommitProperties(custom_metadata={"run_id": run_id, "retired": ",".join(keys)})
        ensure_table(store, name).delete(f"partition_key IN ({quoted})", commit_properties=properties)
    for removals in done:
        removals.end()
    for source in {source_of(key) for key in taken_out}:
        LookFiles(store, source).forget()  # should it come back, all of it is new
    return keys


def _drop(
    store: Store,
    client: IndexClient,
    collection: str,
    keys: Sequence[str],
    taken_out: Mapping[str, Mapping[str, Absence]],
    caches: CacheInvalidation | None,
    *,
    run_id: str,
) -> Removals:
    """Drop partitions of a collection; receipts are written of the documents of those that were taken out."""
    removals = Removals(store, client, collection, run_id=run_id, caches=caches)
    for key in keys:
        if key in taken_out:
            ledger = TableSlice.newest(store, "index_partitions", (key,), lane=collection)
            rows = chunks_by_document(ledger.read(["doc_id", "chunk_id"]))
            unnamed = Absence(datetime.now(UTC))
            removals.note(key, rows, taken_out={doc_id: taken_out[key].get(doc_id, unnamed) for doc_id in rows})
        client.drop_partition(collection, key)
        if left := client.count(collection, key):
            raise TransientError(f"{collection}/{key}: {left} rows are left after the partition was dropped")
        removals.verify(key)
    removals.write()
    return removals


def _documents(store: Store, partition_key: str) -> dict[str, Absence]:
    """Return the ok documents of a partition; that they are not wanted any more is seen now."""
    now = datetime.now(UTC)
    documents = TableSlice.newest(store, "documents", (partition_key,))
    rows = documents.read(["doc_id", "uri", "external_id"], pc.field("status") == "ok").to_pylist()
    return {row["doc_id"]: Absence(now, row["uri"], row["external_id"]) for row in rows}
