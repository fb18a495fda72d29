"""Retention: which generations are kept, and the removal of what no kept one needs.

Rows go from Milvus first and from the tables last, so that a crash in between is noticed and the rest done by the next
run. Vectors stay in the cache: a generation that comes back calls no model.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow.fs as pafs
from deltalake import CommitProperties

from rag_core.errors import TransientError
from rag_core.faults import crash_point
from rag_core.generation import Generation
from rag_core.index import schema
from rag_core.index.client import IndexClient
from rag_core.stages.publication import Generations, latest_manifest, manifests
from rag_core.tables.delta import LANES, ensure_table, lanes_of
from rag_core.tables.files import list_folder, remove_folder
from rag_core.tables.store import Store

_JOURNALS = "work/index"
_TABLES = ("index_partitions", "embeddings", "chunks", "term_statistics")


@dataclass(frozen=True)
class Kept:
    """Collections and lanes that stay."""

    collections: frozenset[str]
    chunk_lanes: frozenset[str]
    embedding_lanes: frozenset[str]

    def lanes(self, table: str) -> frozenset[str]:
        """Return the lanes of a table that stay."""
        if table == "index_partitions":
            return self.collections
        return self.embedding_lanes if table == "embeddings" else self.chunk_lanes


def kept(store: Store, target: Generation | None, *, keep: int) -> Kept:
    """Decide what stays: what is served, the `keep` collections published before it, and the target.

    Args:
        store: Holds the manifests.
        target: What rag.yaml asks for; None if it is given up.
        keep: Collections to keep for rollback.
    """
    settings: dict[str, dict[str, str]] = {}
    for manifest in manifests(store):
        if manifest.collection not in settings and len(settings) <= keep:
            settings[manifest.collection] = json.loads(manifest.settings)
    if target is not None:
        settings[target.collection] = json.loads(target.settings)
    return Kept(
        frozenset(settings),
        frozenset(one["chunk_lane"] for one in settings.values()),
        frozenset(one["embedding_lane"] for one in settings.values()),
    )


def retained(store: Store, known: Generations, *, keep: int) -> list[str]:
    """Return the collections that are kept for rollback only: no run brings them up to date."""
    active = {generation.collection for generation in known.active}
    last = latest_manifest(store)
    return sorted(kept(store, known.target, keep=keep).collections - active - {last.collection if last else ""})


def collect(store: Store, known: Generations, client: IndexClient, *, run_id: str) -> list[str]:
    """Remove the collections and rows that neither the served index, the target nor a rollback needs.

    Returns:
        The collections that were removed.
    """
    keep = known.target.config.publication.keep_collections
    return _remove_all_but(store, kept(store, known.target, keep=keep), known.target, client, run_id=run_id)


def abandon(store: Store, known: Generations, client: IndexClient, *, run_id: str) -> list[str]:
    """Remove a generation that is being built and was never published; what is served or kept is not touched.

    A publication that was cut off before the alias moved did not happen.

    Returns:
        The collections that were removed.
    """
    _forget_unreached_manifest(store, known.target, client, run_id=run_id)
    keep = known.target.config.publication.keep_collections
    return _remove_all_but(store, kept(store, None, keep=keep), known.target, client, run_id=run_id)


def _forget_unreached_manifest(store: Store, target: Generation, client: IndexClient, *, run_id: str) -> None:
    """Delete the manifests of the target that are newer than any of the collection that queries reach."""
    last, queried = latest_manifest(store), client.alias_target(target.config.index.alias)
    if last is None or last.collection != target.collection or queried == target.collection:
        return
    reached = next((one.published_at for one in manifests(store) if one.collection == queried), None)
    since = f" AND published_at > '{reached.isoformat()}'" if reached else ""
    properties = CommitProperties(custom_metadata={"run_id": run_id, "abandoned": target.collection})
    ensure_table(store, "published_index").delete(
        f"collection = '{target.collection}'{since}", commit_properties=properties
    )


def _remove_all_but(store: Store, stays: Kept, target: Generation, client: IndexClient, *, run_id: str) -> list[str]:
    alias = target.config.index.alias
    queried = client.alias_target(alias)
    ours = re.compile(re.escape(schema.collection_name(alias, "")) + r"[0-9a-f]{12}")
    names = {*client.collections(), *_journals(store)}
    candidates = {*filter(ours.fullmatch, names), *lanes_of(store, "index_partitions")}
    removed = sorted(candidates - stays.collections - {queried})
    for collection in removed:
        client.drop_collection(collection)
        crash_point("retention.after_drop")
        if client.has_collection(collection):
            raise TransientError(f"collection {collection} on {client.address} is still there after it was dropped")
        _remove_journal(store, collection)
    for table in _TABLES:
        staying = stays.lanes(table) | ({queried} if table == "index_partitions" else set())
        _delete_lanes(store, table, set(lanes_of(store, table)) - staying, run_id=run_id)
        crash_point(f"retention.after_{table}")
    return removed


def _delete_lanes(store: Store, table: str, lanes: Iterable[str], *, run_id: str) -> None:
    quoted = ", ".join(f"'{lane}'" for lane in sorted(lanes))  # digests and collection names: no quotes in them
    if quoted:
        properties = CommitProperties(custom_metadata={"run_id": run_id, "removed_lanes": quoted})
        ensure_table(store, table).delete(f"{LANES[table]} IN ({quoted})", commit_properties=properties)


def _journals(store: Store) -> list[str]:
    """Return the collections that have a journal, or notes of removed documents."""
    return [one.base_name for one in list_folder(store, _JOURNALS) if one.type == pafs.FileType.Directory]


def _remove_journal(store: Store, collection: str) -> None:
    remove_folder(store, f"{_JOURNALS}/{collection}")
