"""Partitions that the configuration no longer has: a source was taken out, or has fewer buckets.

What was indexed of them must not be found any more. It goes from the index first and from the tables last, so that a
crash in between is noticed and the rest done by the next run. Vectors stay in the cache: a source that comes
back calls no model.
"""

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties

from rag_core.config import RagConfig
from rag_core.errors import TransientError
from rag_core.index.client import IndexClient
from rag_core.partitions import all_partition_keys
from rag_core.tables.delta import PARTITIONED, ensure_table
from rag_core.tables.store import Store

# The documents name the partition to the end: they are what an interrupted retirement is found by.
_ORDER = ("index_partitions", "embeddings", "chunks", "documents")
assert set(_ORDER) == PARTITIONED


def retired_partitions(store: Store, config: RagConfig) -> list[str]:
    """Return the partition keys that tables hold and the configuration does not have, sorted."""
    held: set[str] = set()
    for name in _ORDER:
        actions = pa.table(ensure_table(store, name).get_add_actions(flatten=True))
        if "partition.partition_key" in actions.column_names:
            held.update(pc.unique(actions["partition.partition_key"]).to_pylist())
    return sorted(held.difference(all_partition_keys(config)))


def retire(store: Store, config: RagConfig, client: IndexClient, collection: str, *, run_id: str) -> list[str]:
    """Remove partitions that the configuration does not have from a collection and from every table.

    Returns:
        The partitions that were removed.

    Raises:
        TransientError: The collection still holds rows of one of them; nothing was removed from the tables.
    """
    keys = retired_partitions(store, config)
    if not keys:
        return []
    for key in keys:
        client.drop_partition(collection, key)
        if left := client.count(collection, key):
            raise TransientError(f"{collection}/{key}: {left} rows are left after the partition was dropped")
    quoted = ", ".join(f"'{key}'" for key in keys)  # keys are letters, digits and underscores
    for name in _ORDER:
        properties = CommitProperties(custom_metadata={"run_id": run_id, "retired": ",".join(keys)})
        ensure_table(store, name).delete(f"partition_key IN ({quoted})", commit_properties=properties)
    return keys
