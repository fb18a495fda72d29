"""Publication: which generations there are, whether one is complete, and the manifest of what is served."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from rag_core.config import RagConfig
from rag_core.errors import ConfigError
from rag_core.faults import crash_point
from rag_core.generation import Generation, configured, restored
from rag_core.index.client import IndexClient
from rag_core.index.publish import point_alias
from rag_core.partitions import all_partition_keys
from rag_core.schemas import PUBLISHED_INDEX
from rag_core.stages import term_statistics
from rag_core.stages.common import anti_join, count_by_partition
from rag_core.tables.delta import TableSlice, in_set, newest_version
from rag_core.tables.log import append_table
from rag_core.tables.store import Store

STAGE_TABLES = ("documents", "chunks", "embeddings", "index_partitions")

PUBLISHED = "published"
_ROLLED_BACK = "rolled back from "


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
    settings: str
    ann_recall_at_10: float | None
    verdict: str

    @property
    def chunk_lane(self) -> str:
        """Lane of the chunks that are served."""
        return str(json.loads(self.settings)["chunk_lane"])

    @property
    def rolled_back_from(self) -> str | None:
        """The collection that this one took the place of again, or None if it was published as usual."""
        return self.verdict.removeprefix(_ROLLED_BACK) if self.verdict.startswith(_ROLLED_BACK) else None


def rolled_back_verdict(collection: str) -> str:
    """Write the verdict of a manifest that took a collection's place again."""
    return f"{_ROLLED_BACK}{collection}"


@dataclass(frozen=True)
class Generations:
    """The generations that take changes of documents.

    Attributes:
        target: What rag.yaml asks for.
        served: What queries reach; None if nothing was published or it is the target.
        lost: Why what queries reach cannot take changes any more (its model is gone); empty otherwise.
    """

    target: Generation
    served: Generation | None = None
    lost: str = ""

    @property
    def active(self) -> tuple[Generation, ...]:
        """The served one first: a change is to be findable soon, whatever else is being built."""
        return (self.target,) if self.served is None else (self.served, self.target)


def generations(store: Store, config: RagConfig) -> Generations:
    """Return what rag.yaml asks for, and what is served if that is another.

    Raises:
        ConfigError: The model that rag.yaml asks for is not there.
    """
    target, manifest = configured(config), latest_manifest(store)
    if manifest is None or manifest.collection == target.collection:
        return Generations(target)
    try:
        return Generations(target, served=restored(config, manifest.collection, manifest.settings))
    except ConfigError as error:
        return Generations(target, lost=f"{manifest.collection} is served and takes no changes any more: {error}")


@dataclass(frozen=True)
class SearchChoice:
    """What a measurement found: parameters for dense searches, and the recall they reach; None if not measured."""

    search_params: str
    ann_recall_at_10: float | None


@dataclass(frozen=True)
class Publication:
    """Outcome of an attempt to publish.

    Attributes:
        manifest: The row that was (or already had been) written; None while the collection is incomplete.
        changed: Whether the manifest differs from the one before.
        incomplete: Partition key -> chunks that wait for a vector or for the index.
        version: Version of the `published_index` table.
        held: Why the target is not published although it is complete; empty if it is.
    """

    manifest: Manifest | None
    changed: bool
    incomplete: dict[str, int]
    version: int
    held: str = ""


def incomplete_partitions(store: Store, generation: Generation) -> dict[str, int]:
    """Count, by partition, what of the documents the collection does not show yet according to the ledger.

    Counted are chunks that wait for a vector or for the index, chunks to be removed, and documents to be cut.
    """
    here = pc.field("model_fingerprint") == generation.spec.fingerprint
    documents = TableSlice.newest(store, "documents")
    ok = documents.read(["partition_key", "doc_id", "doc_hash"], pc.field("status") == "ok")
    chunks = TableSlice.newest(store, "chunks", lane=generation.chunk_lane)
    wanted = chunks.read(["partition_key", "chunk_id", "doc_id", "doc_hash", "row_hash"])
    ledger = TableSlice.newest(store, "index_partitions", lane=generation.collection)
    held = ledger.read(["partition_key", "chunk_id", "row_hash"], here)
    waiting = Counter(count_by_partition(anti_join(wanted, held, ["chunk_id", "row_hash"])))
    waiting.update(count_by_partition(anti_join(held, wanted, ["chunk_id"])))
    waiting.update(count_by_partition(not_blank(documents, anti_join(ok, wanted, ["doc_id", "doc_hash"]))))
    waiting.update(count_by_partition(anti_join(wanted, ok, ["doc_id"])))
    known = set(all_partition_keys(generation.config))
    return {key: count for key, count in sorted(waiting.items()) if key in known}


def not_blank(documents: TableSlice, uncut: pa.Table) -> pa.Table:
    """Of documents without chunks, return those that should have some: a blank text has none."""
    if not uncut.num_rows:
        return uncut
    ids, blank = uncut["doc_id"].combine_chunks(), []
    for batch in documents.batches(["doc_id", "text"], in_set("doc_id", ids), batch_rows=256):
        is_blank = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(batch.column("text"))), 0)
        blank += batch.column("doc_id").filter(is_blank).to_pylist()
    return uncut.filter(pc.invert(pc.is_in(uncut["doc_id"], pa.array(blank, pa.string()))))


def publish(
    store: Store,
    generation: Generation,
    client: IndexClient,
    *,
    choice: SearchChoice,
    run_id: str,
    forced: bool = False,
) -> Publication:
    """Write the manifest and point the alias, if the collection is complete.

    The manifest is written first: a crash between the two leaves the alias at the old collection, and the next attempt
    points it. An unchanged manifest commits nothing.

    Args:
        store: Holds the tables.
        generation: What to publish.
        client: Connected to the Milvus that holds the collection.
        choice: Search parameters and the recall that was measured with them.
        run_id: Kept in the commit.
        forced: Publish a collection again that was rolled back from.
    """
    incomplete = incomplete_partitions(store, generation)
    last = latest_manifest(store)
    held = "" if forced else held_by_rollback(last, generation)
    if incomplete or held:
        return Publication(None, False, incomplete, newest_version(store, "published_index"), held)
    manifest = _manifest(store, generation, choice, run_id=run_id)
    if last is not None and last.collection == manifest.collection and not forced:
        manifest = replace(manifest, verdict=last.verdict)
    changed = last is None or _identity(last) != _identity(manifest)
    if changed:
        write_manifest(store, manifest, run_id=run_id)
    crash_point("published_index.before_alias")
    point_alias(client, manifest.alias, manifest.collection)
    crash_point("published_index.after_alias")
    version = newest_version(store, "published_index")
    return Publication(manifest if changed or last is None else last, changed, {}, version)


def held_by_rollback(last: Manifest | None, generation: Generation) -> str:
    """Say why a generation must not be published by itself again; empty if it may."""
    if last is None or last.rolled_back_from != generation.collection:
        return ""
    when = f"{last.published_at:%Y-%m-%d %H:%M} UTC"
    return (
        f"{generation.collection} was rolled back from at {when}, and {last.collection} is served: set rag.yaml back "
        f"to its settings, or publish the new index again with `rag publish --again`"
    )


def write_manifest(store: Store, manifest: Manifest, *, run_id: str) -> None:
    """Append a manifest; from now on it is the newest."""
    row = pa.Table.from_pylist([asdict(manifest)], schema=PUBLISHED_INDEX)
    append_table(store, "published_index", row, run_id=run_id)


def latest_manifest(store: Store) -> Manifest | None:
    """Return the newest manifest, or None if nothing was ever published."""
    rows = _newest_first(store).slice(0, 1).to_pylist()
    return Manifest(**rows[0]) if rows else None


def manifests(store: Store) -> list[Manifest]:
    """Return all manifests, the newest first."""
    return [Manifest(**row) for row in _newest_first(store).to_pylist()]


def _newest_first(store: Store) -> pa.Table:
    return TableSlice.newest(store, "published_index").read().sort_by([("published_at", "descending")])


def _identity(manifest: Manifest) -> tuple[object, ...]:
    values = asdict(manifest)
    return tuple(value for name, value in values.items() if name != "published_at")


def _manifest(store: Store, generation: Generation, choice: SearchChoice, *, run_id: str) -> Manifest:
    statistics_version = term_statistics.refresh(store, generation.chunk_lane, run_id=run_id)
    versions = {name: newest_version(store, name) for name in STAGE_TABLES}
    versions[term_statistics.TABLE] = statistics_version
    config, spec = generation.config, generation.spec
    return Manifest(
        collection=generation.collection,
        alias=config.index.alias,
        published_at=datetime.now(UTC),
        model=spec.name,
        model_fingerprint=spec.fingerprint,
        dim=spec.dim,
        metric=config.index.metric,
        index_type=config.index.index_type,
        search_params=choice.search_params,
        documents=TableSlice.newest(store, "documents").count(pc.field("status") == "ok"),
        chunks=TableSlice.newest(store, "index_partitions", lane=generation.collection).count(),
        partitions=len(all_partition_keys(config)),
        table_versions=json.dumps(versions, sort_keys=True),
        settings=generation.settings,
        ann_recall_at_10=choice.ann_recall_at_10,
        verdict=PUBLISHED,
    )
