"""Removed documents in collections that no run brings up to date: those kept for rollback, or whose model is gone.

They take no other changes, but what was removed must not be found in them either once one of them is served again.
"""

from collections.abc import Sequence
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc

from rag_core.caching.invalidation import caches_of
from rag_core.index.client import IndexClient
from rag_core.index.deleting import delete_rows
from rag_core.index.journal import SyncJournal
from rag_core.stages.common import anti_join
from rag_core.stages.deletions import CacheInvalidation, Removals, chunks_by_document
from rag_core.stages.publication import Generations
from rag_core.tables.change import TableChange, commit
from rag_core.tables.delta import TableSlice, lanes_of
from rag_core.tables.store import Store


def remove_from_kept(
    store: Store, known: Generations, client: IndexClient, partition_keys: Sequence[str], *, run_id: str
) -> int:
    """Remove from every collection beside the active ones the documents that were removed from some partitions.

    A document counts as removed once neither the documents table has it as ok nor an active generation has chunks of
    it: its removal then passed the checks that hold a partition back.

    Args:
        store: Holds the tables.
        known: The active generations.
        client: Connected to the Milvus that holds the collections.
        partition_keys: Partitions whose active generations are up to date.
        run_id: Kept in the receipts and commits.

    Returns:
        Receipts: documents times collections that they were removed from.

    Raises:
        TransientError: Something of a removed document is still found, or the cache of the service was not told of it;
            a further run tries again.
    """
    active = {generation.collection for generation in known.active}
    others = [
        name for name in lanes_of(store, "index_partitions") if name not in active and client.has_collection(name)
    ]
    if not others or not partition_keys:
        return 0
    lanes = dict.fromkeys(generation.chunk_lane for generation in known.active)
    chunked = [TableSlice.newest(store, "chunks", partition_keys, lane=lane).read(["doc_id"]) for lane in lanes]
    caches = caches_of(known.target.config, store)
    return sum(_remove_from(store, client, name, partition_keys, chunked, caches, run_id=run_id) for name in others)


def _remove_from(
    store: Store,
    client: IndexClient,
    collection: str,
    partition_keys: Sequence[str],
    chunked: Sequence[pa.Table],
    caches: CacheInvalidation | None,
    *,
    run_id: str,
) -> int:
    removals = Removals(store, client, collection, run_id=run_id, caches=caches)
    journal = SyncJournal(store, collection)
    ledger = TableSlice.newest(store, "index_partitions", partition_keys, lane=collection)
    rows = ledger.read(["partition_key", "doc_id", "chunk_id"])
    candidates = reduce(lambda left, right: anti_join(left, right, ["doc_id"]), chunked, rows)
    removed: list[str] = []
    marked: list[str] = []
    for key in partition_keys:
        documents = chunks_by_document(candidates.filter(pc.field("partition_key") == key))
        if gone := removals.note(key, documents):
            # A mark that a sync left is not taken away here: more than these rows may differ then.
            if not journal.is_open(key):
                journal.begin(key)
                marked.append(key)
            delete_rows(client, collection, key, [chunk_id for doc_id in gone for chunk_id in documents[doc_id]])
            removals.verify(key)
            removed += gone
    receipts = removals.write()
    commit(TableChange(ledger, "doc_id", replaced=tuple(sorted(removed))), run_id=run_id)
    for key in marked:
        journal.end(key)
    removals.end()
    return receipts
