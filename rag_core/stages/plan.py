"""What the next run would do, before anything runs: by source, and for the index that rag.yaml asks for.

Sources are listed and tables read; nothing is written. What depends on text that was not cut yet is an estimate.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rag_core import ids
from rag_core.config import RagConfig
from rag_core.embedding.cache import VectorCache
from rag_core.engine.chunkers import chunker_fingerprints
from rag_core.generation import Generation, changed_settings
from rag_core.partitions import partition_keys_of
from rag_core.stages.common import anti_join
from rag_core.stages.documents import listed_difference
from rag_core.stages.publication import Generations, generations, latest_manifest
from rag_core.stages.throughput import throughput
from rag_core.tables.delta import TableSlice
from rag_core.tables.store import Store

_CHUNK = ["doc_id", "chunk_id", "row_hash", "text_hash", "doc_hash", "chunker_fingerprint"]
_FLOAT32_BYTES = 4


@dataclass(frozen=True)
class SourcePlan:
    """Objects of a source: how many are new, changed (or to be parsed anew), gone and unchanged."""

    source: str
    new: int
    changed: int
    deleted: int
    unchanged: int


@dataclass(frozen=True)
class IndexPlan:
    """Work for one generation.

    Attributes:
        collection: Its collection.
        served: Whether queries reach it now.
        documents_to_cut: Documents whose chunks are missing or stale in its lane, those to be parsed included.
        texts_to_embed: Texts that its model has no vector for.
        texts_reused: Chunks that wait for a vector which is in the cache.
        rows_to_write: Rows of its collection to be written.
        rows_to_delete: Rows of its collection to be deleted.
        is_estimate: Whether some documents must be cut first, so that chunks are estimated from those that were cut.
        reembed_share: Share of the served chunks that would be embedded anew because of changed settings.
        bytes_of_vectors: Size of the vectors to be added, in the store and in Milvus each.
        seconds: Estimated seconds by step, from measured throughput; steps that never ran are missing.
    """

    collection: str
    served: bool
    documents_to_cut: int
    texts_to_embed: int
    texts_reused: int
    rows_to_write: int
    rows_to_delete: int
    is_estimate: bool
    reembed_share: float
    bytes_of_vectors: int
    seconds: dict[str, float]


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        sources: One entry for each source.
        indexes: The served generation, if rag.yaml asks for another, and the one it asks for.
        changed_settings: In what the two differ; empty if they do not.
        refused: Whether the run would refuse to embed without `--rebuild`.
    """

    sources: list[SourcePlan]
    indexes: list[IndexPlan]
    changed_settings: list[str]
    refused: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the plan for JSON."""
        return asdict(self)


def make_plan(store: Store, config: RagConfig, *, sources: Sequence[str] | None = None) -> Plan:
    """Plan a run over some sources; None means all.

    Raises:
        SourceError: A source cannot be listed.
        ConfigError: The model is not there.
    """
    known = generations(store, config)
    listed, pending = [], 0
    stale: set[str] = set()
    for source in config.sources:
        if sources is not None and source.name not in sources:
            continue
        keys = partition_keys_of(config, source.name)
        difference = listed_difference(TableSlice.newest(store, "documents", keys), config, source)
        new, changed, deleted = len(difference.new), len(difference.changed), len(difference.deleted)
        listed.append(SourcePlan(source.name, new, changed, deleted, difference.unchanged))
        gone = [*difference.deleted, *(item.key for item in difference.changed)]
        stale.update(ids.doc_id(source.name, key) for key in gone)
        pending += new + changed
    rates = throughput(store)
    indexes = [_index_plan(store, known, one, pending, stale, rates) for one in known.active]
    limit = config.publication.max_reembed_share
    changed_now = changed_settings(known.served, known.target) if known.served else []
    return Plan(listed, indexes, changed_now, refused=indexes[-1].reembed_share > limit)


def _index_plan(
    store: Store, known: Generations, generation: Generation, pending: int, stale: set[str], rates: dict[str, float]
) -> IndexPlan:
    documents = TableSlice.newest(store, "documents").read(["doc_id", "doc_hash", "source"], pc.field("status") == "ok")
    documents = documents.filter(pc.invert(pc.is_in(documents["doc_id"], pa.array(sorted(stale), pa.string()))))
    chunks = TableSlice.newest(store, "chunks", lane=generation.chunk_lane).read(_CHUNK)
    current = _current_chunks(documents, chunks, generation)
    uncut = anti_join(documents, current, ["doc_id"]).num_rows + pending
    expected = round(uncut * _chunks_per_document(store, known, generation))
    embedded = TableSlice.newest(store, "embeddings", lane=generation.embedding_lane).read(["chunk_id", "text_hash"])
    waiting = anti_join(current, embedded, ["chunk_id", "text_hash"])
    hashes = pc.unique(waiting["text_hash"]).to_pylist()
    missing = VectorCache(store).missing(generation.spec.fingerprint, hashes)
    ledger = TableSlice.newest(store, "index_partitions", lane=generation.collection).read(["chunk_id", "row_hash"])
    unwritten = anti_join(current, ledger, ["chunk_id", "row_hash"]).num_rows
    texts, rows = len(missing) + expected, unwritten + expected
    last = latest_manifest(store)
    work = {"parse": pending, "chunk": uncut, "embed": texts, "index": rows}
    return IndexPlan(
        collection=generation.collection,
        served=last is not None and last.collection == generation.collection,
        documents_to_cut=uncut,
        texts_to_embed=texts,
        texts_reused=len(hashes) - len(missing),
        rows_to_write=rows,
        rows_to_delete=anti_join(ledger, current, ["chunk_id"]).num_rows,
        is_estimate=uncut > 0,
        reembed_share=_reembed_share(store, known, generation, documents, current, missing),
        bytes_of_vectors=rows * generation.spec.dim * _FLOAT32_BYTES,
        seconds={step: round(amount / rates[step], 1) for step, amount in work.items() if step in rates},
    )


def _current_chunks(documents: pa.Table, chunks: pa.Table, generation: Generation) -> pa.Table:
    """Return the chunks that a run would keep: cut from the document as it is, by the chunker of the settings."""
    keys = ["doc_id", "doc_hash"]
    if generation.follows_settings:
        fingerprints = chunker_fingerprints(generation.config)
        wanted = [fingerprints.get(source, "") for source in documents["source"].to_pylist()]
        documents = documents.append_column("chunker_fingerprint", pa.array(wanted, pa.string()))
        keys.append("chunker_fingerprint")
    return chunks.join(documents.select(keys), keys=keys, join_type="left semi")


def _chunks_per_document(store: Store, known: Generations, generation: Generation) -> float:
    """Estimate from the lane itself, else from the served one, by the size of its chunks."""
    for other in (generation, known.served):
        if other is None:
            continue
        chunks = TableSlice.newest(store, "chunks", lane=other.chunk_lane).read(["doc_id"])
        if chunks.num_rows:
            size = other.config.chunking.max_tokens / generation.config.chunking.max_tokens
            documents: int = pc.count_distinct(chunks["doc_id"]).as_py()
            return float(chunks.num_rows / documents * size)
    return 1.0


def _reembed_share(
    store: Store,
    known: Generations,
    generation: Generation,
    documents: pa.Table,
    current: pa.Table,
    missing: Sequence[str],
) -> float:
    """Estimate what `rebuild.reembedded_share` will be; all chunks of documents that are still to be cut count."""
    served = known.served
    if served is None or generation is not known.target or served.embedding_lane == generation.embedding_lane:
        return 0.0
    ledger = TableSlice.newest(store, "index_partitions", lane=served.collection).read(["doc_id"])
    built = TableSlice.newest(store, "embeddings", lane=generation.embedding_lane).read(["doc_id"])
    documents = documents.join(ledger.select(["doc_id"]), keys=["doc_id"], join_type="left semi")
    if not documents.num_rows:
        return 0.0
    chunks = current.join(documents.select(["doc_id"]), keys=["doc_id"], join_type="left semi")
    uncut = anti_join(anti_join(documents, built, ["doc_id"]), chunks, ["doc_id"]).num_rows / documents.num_rows
    unbuilt = anti_join(chunks, built, ["doc_id"])
    again = pc.sum(pc.is_in(unbuilt["text_hash"], pa.array(missing, pa.string()))).as_py() or 0
    return float(uncut + (1 - uncut) * again / max(1, chunks.num_rows))
