"""Partitions that the configuration no longer has: a source was taken out, or has fewer buckets.

What was indexed of them must not be found any more. It goes from the index first and from the tables last, so that a
crash in between is noticed and the rest done by the next run. Vectors stay in the cache: a source that comes
back calls no model.
"""

from deltalake import CommitProperties

from rag_core.config import RagConfig
from rag_core.errors import TransientError
from rag_core.index.client import IndexClient
from rag_core.partitions import all_partition_keys
from rag_core.tables.delta import PARTITIONED, ensure_table, lanes_of, partition_values
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

    Returns:
        The partitions that were removed.

    Raises:
        TransientError: A collection still holds rows of one of them; nothing was removed from the tables.
    """
    keys = retired_partitions(store, config)
    if not keys:
        return []
    for collection in lanes_of(store, "index_partitions"):
        for key in keys if client.has_collection(collection) else ():
            client.drop_partition(collection, key)
            if left := client.count(collection, key):
                raise TransientError(f"{collection}/{key}: {left} rows are left after the partition was dropped")
    quoted = ", ".join(f"'{key}'" for key in keys)  # keys are letters, digits and underscores
    for name in _ORDER:
        properties = CommitProperties(custom_metadata={"run_id": run_id, "retired": ",".join(keys)})
        ensure_table(store, name).delete(f"partition_key IN ({quoted})", commit_properties=properties)
    return keys
