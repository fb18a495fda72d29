"""The four partitioned assets. Each reads slices, calls one pure function of `rag_core.stages`, and commits.

While a new generation is built beside the served one, each stage does its work for both, one after the other.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import dagster as dg

from rag_assets.deletions import deletions_metadata
from rag_assets.materialize import OWNERS, RETRY, Committed, commit_output, failures_by_class, materialize
from rag_core import ids
from rag_core.config import RagConfig
from rag_core.embedding.manifest import remove_manifest
from rag_core.errors import PermanentError, RagError
from rag_core.generation import Generation
from rag_core.index.schema import SCHEMA_VERSION
from rag_core.parsing.settings import ParseSettings, parser_fingerprint
from rag_core.quality.gate import Gate, gate
from rag_core.stages.chunks import chunks_change
from rag_core.stages.common import count_by_partition
from rag_core.stages.documents import documents_change
from rag_core.stages.embeddings import embeddings_change, plan_embeddings
from rag_core.stages.index import IndexTables, index_change
from rag_core.stages.kept import remove_from_kept
from rag_core.stages.publication import Generations, generations
from rag_core.stages.rebuild import refusal
from rag_core.stages.retirement import retire
from rag_core.tables.delta import TableSlice
from resources.embedding import EmbeddingLauncherResource
from resources.engine import EngineResource
from resources.milvus import MilvusResource
from resources.platform import PlatformResource
from resources.progress import progress_of

MILVUS_POOL = "milvus_writes"
EMBEDDING_POOL = "embedding"

NOT_BUILT = "not_built"
"""Metadata of `embeddings`: why the index that rag.yaml asks for was left as it is."""

REBUILD_TAG = "rag/rebuild"
"""Set to `allow` on a run, it lets a changed setting embed everything anew."""


def build_stage_assets(config: RagConfig, partitions: dg.PartitionsDefinition[str]) -> Sequence[dg.AssetsDefinition]:
    """Make the partitioned assets for a configuration; code versions are digests of what would change their rows."""
    policy = dg.BackfillPolicy.multi_run(max_partitions_per_run=config.run.max_partitions_per_run)
    parsing = [parser_fingerprint(ParseSettings.of(config.parsing, source)) for source in config.sources]
    chunking = [config.chunking_of(source).model_dump() for source in config.sources]
    embedding = config.embedding.model_dump(include={"backend", "model", "revision", "max_tokens", "passage_prefix"})
    stage = partial(dg.asset, partitions_def=partitions, backfill_policy=policy, retry_policy=RETRY, owners=OWNERS)

    @stage(
        group_name="ingest",
        kinds={"spark", "deltalake"},
        code_version=ids.fingerprint({"parsing": parsing})[:12],
    )
    def documents(
        context: dg.AssetExecutionContext, platform: PlatformResource, engine: EngineResource
    ) -> dg.MaterializeResult[TableSlice]:
        """Source objects as Markdown text, one row per document; key `doc_id`.

        Lists the partition's source, parses what is new or changed, drops what is gone. Every object has a row: `ok`,
        `empty` or `rejected` with its reason.
        """
        with failures_by_class():
            current = platform.slice("documents", context.partition_keys)
            output = documents_change(current, platform.config, engine.engine(), on_progress=progress_of(context))
            done = [commit_output(context, output)]
            return materialize(context, done, preview=("uri", "status", "title", "mime", "language"))

    @stage(
        group_name="ingest",
        kinds={"spark", "deltalake"},
        code_version=ids.fingerprint({"chunking": chunking, "model": embedding})[:12],
    )
    def chunks(
        context: dg.AssetExecutionContext, documents: TableSlice, platform: PlatformResource, engine: EngineResource
    ) -> dg.MaterializeResult[TableSlice]:
        """Spans of documents that are searched and cited, one row per chunk; key `chunk_id` within its lane.

        `text` is exactly the document's text from `char_start` to `char_end`.
        """
        with failures_by_class():
            current = platform.slice("chunks", context.partition_keys)
            checked = _gate(context, platform, documents)
            done = [
                commit_output(
                    context,
                    chunks_change(
                        documents.of(*checked.passed),
                        current.of(*checked.passed),
                        generation,
                        engine.engine(),
                        on_progress=progress_of(context),
                    ),
                )
                for generation in _by_lane(_generations(context, platform), "chunk_lane")
            ]
            # Embedding wants the memory and the cores; what Spark is needed for is done.
            engine.release()
            preview = ("title", "heading_path", "token_count", "text")
            return materialize(context, done, preview=preview, held=checked.held)

    @stage(
        group_name="ingest",
        kinds={"pytorch", "deltalake"},
        pool=EMBEDDING_POOL,
        code_version=ids.fingerprint(embedding)[:12],
    )
    def embeddings(
        context: dg.AssetExecutionContext,
        chunks: TableSlice,
        platform: PlatformResource,
        embedding_launcher: EmbeddingLauncherResource,
    ) -> dg.MaterializeResult[TableSlice]:
        """Unit vectors of the chunks' texts, one row per chunk; key `chunk_id` within its lane.

        A text is embedded once per model: what the vector cache holds is reused, whichever document or partition it
        came from.
        """
        with failures_by_class():
            current = platform.slice("embeddings", context.partition_keys)
            known = _generations(context, platform)
            lanes = [
                _embed(context, platform, embedding_launcher, known, generation, chunks, current)
                for generation in _by_lane(known, "embedding_lane")
            ]
            return materialize(
                context,
                [lane.committed for lane in lanes],
                preview=("chunk_id", "text_hash", "model_fingerprint"),
                held={key: reasons for lane in lanes for key, reasons in lane.held.items()},
                extra={"model": known.target.spec.name, **{k: v for lane in lanes for k, v in lane.metadata.items()}},
            )

    @stage(
        group_name="index",
        kinds={"milvus", "deltalake"},
        pool=MILVUS_POOL,
        code_version=str(SCHEMA_VERSION),
    )
    def index_partitions(
        context: dg.AssetExecutionContext,
        chunks: TableSlice,
        embeddings: TableSlice,
        platform: PlatformResource,
        milvus: MilvusResource,
    ) -> dg.MaterializeResult[TableSlice]:
        """The ledger of what Milvus was verified to hold, one row per chunk; key `collection`, `chunk_id`.

        Upserts what is new, reads it back, deletes what is gone, counts, and only then writes the ledger. What was
        removed is verified to be unfindable, in every collection that is kept, and has a receipt in `deletions`.
        """
        with failures_by_class(), milvus.client() as client:
            known = _generations(context, platform)
            ledger = platform.slice("index_partitions", context.partition_keys)
            done, held, retired = [], {}, []
            passed = set(context.partition_keys)
            for generation in known.active:
                client.ensure_collection(
                    generation.collection,
                    dim=generation.spec.dim,
                    model_fingerprint=generation.spec.fingerprint,
                    config=generation.config.index,
                )
                retired += retire(platform.store, platform.config, client, run_id=context.run_id)
                checked = _gate(context, platform, _built(chunks, embeddings, known, generation))
                held.update(checked.held)
                passed.difference_update(checked.held)
                tables = [table.of(*checked.passed) for table in (chunks, embeddings, ledger)]
                output = index_change(
                    IndexTables(*tables),
                    client,
                    generation,
                    run_id=context.run_id,
                    on_progress=progress_of(context),
                )
                done.append(commit_output(context, output))
            remove_from_kept(platform.store, known, client, sorted(passed), run_id=context.run_id)
            return materialize(
                context,
                done,
                preview=("chunk_id", "doc_id", "indexed_at"),
                held=held,
                extra={
                    "collection": known.target.collection,
                    "retired_partitions": ", ".join(retired) or "none",
                    **deletions_metadata(platform.store, context.run_id),
                },
            )

    return [documents, chunks, embeddings, index_partitions]


@dataclass(frozen=True)
class _Embedded:
    """What was done for one lane of vectors."""

    committed: Committed
    held: Mapping[str, tuple[str, ...]]
    metadata: Mapping[str, object]


def _embed(
    context: dg.AssetExecutionContext,
    platform: PlatformResource,
    launcher: EmbeddingLauncherResource,
    known: Generations,
    generation: Generation,
    chunks: TableSlice,
    current: TableSlice,
) -> _Embedded:
    """Embed what a generation's lane lacks.

    A rebuilding that nobody asked for, or whose model fails for good, leaves its lane as it is. That is no failure of
    the step, for what is served goes on taking changes; the run reports it, and publication fails.
    """
    checked = _gate(context, platform, chunks.in_lane(generation.chunk_lane))
    chunks, current = chunks.of(*checked.passed), current.of(*checked.passed)
    plan = plan_embeddings(chunks, current, generation, run_id=context.run_id)
    metadata: dict[str, object] = {}
    asked = generation is not known.target or context.run.tags.get(REBUILD_TAG) == "allow"
    not_built = "" if asked else refusal(plan, known)
    started = time.perf_counter()
    if plan.manifest and not not_built:
        context.log.info(f"{plan.texts - plan.missing:,} of {plan.texts:,} texts are in the vector cache")
        try:
            report = launcher.run(context, plan.manifest, progress_of(context))
        except RagError as error:
            if known.served is None or generation is not known.target or _is_tried_again(context, error):
                raise
            not_built = f"{generation.collection} is not built: {error}. {known.served.collection} serves on"
        else:
            metadata |= {f"worker_{name}": value for name, value in report.items()}
    if not_built:
        context.log.error(not_built)
        metadata[NOT_BUILT] = not_built
        remove_manifest(platform.store, context.run_id)
        plan = plan_embeddings(chunks.of(), current.of(), generation, run_id=context.run_id)
    output = embeddings_change(plan, embed_seconds=time.perf_counter() - started)
    return _Embedded(commit_output(context, output), checked.held, metadata)


def _is_tried_again(context: dg.AssetExecutionContext, error: RagError) -> bool:
    return not isinstance(error, PermanentError) and context.retry_number < RETRY.max_retries


def _built(chunks: TableSlice, embeddings: TableSlice, known: Generations, generation: Generation) -> TableSlice:
    """Return a generation's vectors, without partitions that `embeddings` left alone although they have chunks.

    It said why: a check that finds all their vectors missing would only say less.
    """
    chunks, embeddings = chunks.in_lane(generation.chunk_lane), embeddings.in_lane(generation.embedding_lane)
    if known.served is None or generation is not known.target:
        return embeddings
    cut, embedded = (count_by_partition(table.read(["partition_key"])) for table in (chunks, embeddings))
    return embeddings.of(*(key for key in embeddings.partition_keys or () if key in embedded or key not in cut))


def _generations(context: dg.AssetExecutionContext, platform: PlatformResource) -> Generations:
    known = generations(platform.store, platform.config)
    if known.lost:
        context.log.warning(known.lost)
    return known


def _by_lane(known: Generations, lane: str) -> list[Generation]:
    """Return the generations to work for: of two that share a lane the target, whose settings the lane follows."""
    return list({getattr(generation, lane): generation for generation in known.active}.values())


def _gate(context: dg.AssetExecutionContext, platform: PlatformResource, upstream: TableSlice) -> Gate:
    """Let the partitions through whose blocking checks passed, and say which did not."""
    checked = gate(upstream, platform.config, run_id=context.run_id)
    for key, reasons in checked.held.items():
        context.log.error(f"{key} is held back, its rows stay as they are: {'; '.join(reasons)}")
    return checked
