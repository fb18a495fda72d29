"""Rollback: the collection that was published before is served again, in one step."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pyarrow.compute as pc

from rag_core.caching.invalidation import caches_of
from rag_core.config import RagConfig
from rag_core.errors import PermanentError
from rag_core.faults import crash_point
from rag_core.generation import restored
from rag_core.index.client import IndexClient
from rag_core.index.deleting import delete_rows
from rag_core.index.publish import point_alias
from rag_core.partitions import all_partition_keys
from rag_core.stages import term_statistics
from rag_core.stages.deletions import Removals
from rag_core.stages.publication import Manifest, manifests, rolled_back_verdict, write_manifest
from rag_core.tables.change import TableChange, commit
from rag_core.tables.delta import TableSlice, lanes_of, newest_version
from rag_core.tables.store import Store


@dataclass(frozen=True)
class Rollback:
    """What a rollback did.

    Attributes:
        manifest: What is served now.
        before: The collection that was served until then.
        withdrawn: Rows removed first, of documents that are gone or may be read by others than when they were indexed.
    """

    manifest: Manifest
    before: str
    withdrawn: int


def rollback(store: Store, config: RagConfig, client: IndexClient, *, run_id: str) -> Rollback:
    """Serve the collection that was published before the present one.

    It took no changes since. So first what must not be found any more is removed from it: rows of documents that are
    gone, and of documents whose readers changed. The rest of the changes comes with the next run. One that was cut off
    is brought to its end.

    Raises:
        PermanentError: There is no collection to go back to.
        ConfigError: The model of the one that there is is no longer there: nobody could ask it anything.
    """
    history = manifests(store)
    if not history:
        raise PermanentError(f"nothing is published in store {store.root} yet; there is nothing to go back to")
    current, queried = history[0], client.alias_target(history[0].alias)
    if current.rolled_back_from and queried == current.rolled_back_from:
        point_alias(client, current.alias, current.collection)
        return Rollback(current, queried, 0)
    old = _published_before(history, client)
    if old is None:
        raise PermanentError(
            f"no collection published before {current.collection} is left on {client.address}; "
            f"publication.keep_collections is {config.publication.keep_collections}"
        )
    restored(config, old.collection, old.settings)
    withdrawn = withdraw(store, config, client, old.collection, run_id=run_id)
    versions = json.loads(old.table_versions)
    if old.chunk_lane in lanes_of(store, term_statistics.TABLE):
        versions[term_statistics.TABLE] = newest_version(store, term_statistics.TABLE)
    manifest = replace(
        old,
        published_at=datetime.now(UTC),
        chunks=TableSlice.newest(store, "index_partitions", lane=old.collection).count(),
        table_versions=json.dumps(versions, sort_keys=True),
        verdict=rolled_back_verdict(current.collection),
    )
    crash_point("rollback.before_manifest")
    write_manifest(store, manifest, run_id=run_id)
    crash_point("rollback.before_alias")
    point_alias(client, manifest.alias, manifest.collection)
    return Rollback(manifest, current.collection, withdrawn)


def _published_before(history: Sequence[Manifest], client: IndexClient) -> Manifest | None:
    """Return the newest manifest from before the present collection was published, of a collection that is left.

    Not simply of another collection: going back twice must not serve again what was gone back from.
    """
    present = history[0].collection
    published = [one for one in history if one.collection == present and one.rolled_back_from is None]
    since = max((one.published_at for one in published), default=history[0].published_at)
    return next(
        (
            one
            for one in history
            if one.collection != present and one.published_at < since and client.has_collection(one.collection)
        ),
        None,
    )


def withdraw(store: Store, config: RagConfig, client: IndexClient, collection: str, *, run_id: str) -> int:
    """Remove rows of documents that are gone, with receipts, or whose access label is no longer that of the row.

    Milvus itself is read and not the ledger, which does not know labels. The ledger's rows of these documents go too,
    so that the next run brings back what is only to have another label.

    Returns:
        Rows removed from the collection.
    """
    withdrawn = 0
    ok = TableSlice.newest(store, "documents").read(["doc_id", "access_label"], pc.field("status") == "ok")
    labels = dict(zip(ok["doc_id"].to_pylist(), ok["access_label"].to_pylist(), strict=True))
    removals = Removals(store, client, collection, run_id=run_id, caches=caches_of(config, store))
    for key in all_partition_keys(config):
        wrong: dict[str, list[str]] = {}
        for row in client.list_rows(collection, key, ["doc_id", "access_label"]):
            if labels.get(row["doc_id"]) != row["access_label"]:
                wrong.setdefault(row["doc_id"], []).append(row["chunk_id"])
        removals.note(key, wrong)
        if not wrong:
            continue
        delete_rows(client, collection, key, [chunk_id for chunk_ids in wrong.values() for chunk_id in chunk_ids])
        removals.verify(key)
        withdrawn += sum(map(len, wrong.values()))
        removals.write()
        ledger = TableSlice.newest(store, "index_partitions", (key,), lane=collection)
        commit(TableChange(ledger, "doc_id", replaced=tuple(sorted(wrong))), run_id=run_id)
    removals.end()
    return withdrawn
