"""Embeddings: give every chunk the vector of its text, calling the model only for texts that it never saw.

Two steps with the worker between them: `plan_embeddings` finds what is missing and writes the worker's manifest;
`embeddings_change` takes all vectors from the cache, which the worker has filled by then.
"""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rag_core.chunking.model import embedded_text
from rag_core.embedding.cache import VectorCache
from rag_core.embedding.launch import worker_config
from rag_core.embedding.manifest import remove_manifest, write_manifest
from rag_core.errors import TransientError
from rag_core.generation import Generation
from rag_core.stages.common import Counts, StageOutput, anti_join, count_by_partition, nothing
from rag_core.tables.change import TableChange, stage
from rag_core.tables.delta import TableSlice, in_set, row_schema

_KEYS = ["partition_key", "chunk_id", "doc_id", "text_hash"]
_ROW = row_schema("embeddings")
_LOOKUP_ROWS = 8_192


@dataclass(frozen=True)
class EmbeddingPlan:
    """What a run of the stage has to do.

    Attributes:
        generation: The model, and the lanes.
        chunks: The chunks it reads.
        current: The `embeddings` table it changes.
        rows: Chunks that need a row (partition_key, chunk_id, doc_id, text_hash), sorted by text_hash.
        replaced: Documents whose old rows go away.
        counts: By partition, in chunks.
        texts: Distinct texts among `rows`.
        missing_texts: Hashes of those among them that the cache does not hold.
        manifest: The worker's manifest; None when nothing is missing and no model needs to be called.
        seconds: Wall-clock time of planning.
        run_id: Names the manifest's folder.
    """

    generation: Generation
    chunks: TableSlice
    current: TableSlice
    rows: pa.Table
    replaced: tuple[str, ...]
    counts: dict[str, Counts]
    texts: int
    missing_texts: tuple[str, ...]
    manifest: str | None
    seconds: float
    run_id: str

    @property
    def missing(self) -> int:
        """How many texts the model must embed."""
        return len(self.missing_texts)


def plan_embeddings(chunks: TableSlice, current: TableSlice, generation: Generation, *, run_id: str) -> EmbeddingPlan:
    """Find the chunks without a vector of the generation's model, and write a manifest of the texts to embed."""
    started = time.perf_counter()
    spec = generation.spec
    chunks, current = chunks.in_lane(generation.chunk_lane), current.in_lane(generation.embedding_lane)
    wanted = chunks.read(_KEYS)
    have = current.read(_KEYS, pc.field("model_fingerprint") == spec.fingerprint)
    stale = current.read(_KEYS, pc.field("model_fingerprint") != spec.fingerprint)
    todo, gone = anti_join(wanted, have, _KEYS), anti_join(have, wanted, _KEYS)
    # Rows are replaced by document, so a document with any difference is written as a whole.
    documents = pc.unique(pa.chunked_array([*todo["doc_id"].chunks, *gone["doc_id"].chunks], pa.string()))
    rows = wanted.filter(pc.is_in(wanted["doc_id"], documents)).sort_by("text_hash")
    known = pc.unique(pa.chunked_array([*have["doc_id"].chunks, *stale["doc_id"].chunks], pa.string()))
    stale_ids = pc.unique(stale["doc_id"]).to_pylist()
    replaced = sorted({*stale_ids, *(doc for doc in documents.filter(pc.is_in(documents, known)).to_pylist())})
    texts = pc.unique(rows["text_hash"]).to_pylist()
    missing = VectorCache(current.store).missing(spec.fingerprint, texts)
    manifest = None
    if missing:
        items = _missing_items(chunks, pa.array(missing, pa.string()))
        manifest = write_manifest(current.store, worker_config(generation.config.embedding), spec, items, run_id)
    counts = _counts(current, wanted, todo, gone)
    return EmbeddingPlan(
        generation, chunks, current, rows, tuple(replaced), counts, len(texts), tuple(missing), manifest,
        time.perf_counter() - started, run_id,
    )  # fmt: skip


def _missing_items(chunks: TableSlice, missing: pa.Array) -> Iterator[pa.RecordBatch]:
    columns = ["text_hash", "context", "text", "token_count"]
    for batch in chunks.batches(columns, in_set("text_hash", missing), batch_rows=2_048):
        pairs = zip(batch.column("context").to_pylist(), batch.column("text").to_pylist(), strict=True)
        texts = pa.array([embedded_text(context, text) for context, text in pairs], pa.string())
        yield pa.record_batch(
            [batch.column("text_hash"), texts, batch.column("token_count")], names=["text_hash", "text", "token_count"]
        )


def embeddings_change(
    plan: EmbeddingPlan, *, embed_seconds: float = 0.0, report: Mapping[str, Any] | None = None
) -> StageOutput:
    """Build the table's change from the cache.

    Args:
        plan: What is to be done.
        embed_seconds: Wall-clock time that the worker took.
        report: What the worker says of its work; kept in the commit, where the exporter of metrics finds it.

    Raises:
        TransientError: The cache lacks vectors that the worker was to write; another run embeds them.
    """
    started = time.perf_counter()
    store = plan.current.store
    spec, lane = plan.generation.spec, plan.generation.embedding_lane
    files = stage(store, "embeddings", _rows(plan), lane) if plan.rows.num_rows else ()
    change = TableChange(
        plan.current,
        "doc_id",
        files=files,
        replaced=plan.replaced,
        metadata={
            "consumed": f"chunks@{plan.chunks.version}",
            "model_fingerprint": spec.fingerprint,
            **({"worker": json.dumps(report, default=str)} if report else {}),
        },
    )
    totals = {"embedded": plan.missing, "reused": plan.rows.num_rows - plan.missing, "rows": plan.rows.num_rows}
    seconds = {"plan": plan.seconds, "embed": embed_seconds, "collect": time.perf_counter() - started}
    done = (lambda: remove_manifest(store, plan.run_id)) if plan.manifest else nothing
    return StageOutput(change, plan.counts, seconds, totals, after_commit=done)


def _rows(plan: EmbeddingPlan) -> Iterator[pa.RecordBatch]:
    spec = plan.generation.spec
    cache = VectorCache(plan.current.store)
    for offset in range(0, plan.rows.num_rows, _LOOKUP_ROWS):
        part = plan.rows.slice(offset, _LOOKUP_ROWS).combine_chunks()
        hashes, vectors = cache.lookup(spec.fingerprint, pc.unique(part["text_hash"]).to_pylist())
        position = pc.index_in(part["text_hash"], pa.array(hashes, pa.string()))
        if position.null_count:
            raise TransientError(
                f"{position.null_count} texts of partitions {', '.join(plan.current.partition_keys or ())} have no "
                f"vector in the cache after embedding; run the stage again"
            )
        taken = np.ascontiguousarray(vectors[position.to_numpy()], dtype=np.float32)
        offsets = pa.array(np.arange(part.num_rows + 1, dtype=np.int32) * spec.dim)
        columns = {name: part[name].combine_chunks() for name in _KEYS}
        columns["model_fingerprint"] = pa.repeat(pa.scalar(spec.fingerprint), part.num_rows)
        columns["vector"] = pa.ListArray.from_arrays(offsets, pa.array(taken.reshape(-1)))
        yield pa.record_batch([columns[name] for name in _ROW.names], schema=_ROW)


def _counts(current: TableSlice, wanted: pa.Table, todo: pa.Table, gone: pa.Table) -> dict[str, Counts]:
    totals, added, removed = count_by_partition(wanted), count_by_partition(todo), count_by_partition(gone)
    return {
        key: Counts(
            rows_in=totals.get(key, 0),
            new=added.get(key, 0),
            deleted=removed.get(key, 0),
            unchanged=totals.get(key, 0) - added.get(key, 0),
        )
        for key in current.partition_keys or ()
    }
