"""The four partitioned assets. Each reads slices, and lets `rag_assets.stage_work` do the work of its stage.

While a new generation is built beside the served one, each stage does its work for both, one after the other.
"""

from collections.abc import Sequence
from functools import partial

import dagster as dg

from rag_assets.automation import FRESHNESS, stage_condition
from rag_assets.materialize import OWNERS, RETRY, failures_by_class
from rag_assets.partition_reports import stage_report
from rag_assets.stage_work import (
    StageDone,
    chunks_group,
    documents_group,
    embeddings_group,
    in_groups,
    index_group,
    is_tried_again,
)
from rag_core import ids
from rag_core.config import RagConfig
from rag_core.index.schema import SCHEMA_VERSION
from rag_core.parsing.settings import ParseSettings, parser_fingerprint
from rag_core.tables.delta import TableSlice
from resources.embedding import EmbeddingLauncherResource
from resources.engine import EngineResource
from resources.milvus import MilvusResource
from resources.platform import PlatformResource

MILVUS_POOL = "milvus_writes"
EMBEDDING_POOL = "embedding"


def code_versions(config: RagConfig) -> dict[str, str]:
    """Return the code version of each stage: a digest of the settings that would change its rows."""
    parsing = [parser_fingerprint(ParseSettings.of(config.parsing, source)) for source in config.sources]
    chunking = [config.chunking_of(source).model_dump() for source in config.sources]
    embedding = config.embedding.model_dump(include={"backend", "model", "revision", "max_tokens", "passage_prefix"})
    return {
        "documents": ids.fingerprint({"parsing": parsing})[:12],
        "chunks": ids.fingerprint({"chunking": chunking, "model": embedding})[:12],
        "embeddings": ids.fingerprint(embedding)[:12],
        "index_partitions": str(SCHEMA_VERSION),
    }


def build_stage_assets(config: RagConfig, partitions: dg.PartitionsDefinition[str]) -> Sequence[dg.AssetsDefinition]:
    """Make the partitioned assets for a configuration."""
    policy = dg.BackfillPolicy.multi_run(max_partitions_per_run=config.run.max_partitions_per_run)
    versions = code_versions(config)
    stage = partial(
        dg.asset,
        partitions_def=partitions,
        backfill_policy=policy,
        retry_policy=RETRY,
        owners=OWNERS,
        freshness_policy=FRESHNESS,
    )
    follows = partial(stage, automation_condition=stage_condition())

    @stage(group_name="ingest", kinds={"spark", "deltalake"}, code_version=versions["documents"])
    def documents(
        context: dg.AssetExecutionContext, platform: PlatformResource, engine: EngineResource
    ) -> dg.MaterializeResult[TableSlice]:
        """Source objects as Markdown text, one row per document; key `doc_id`.

        Lists the partition's source, parses what is new or changed, drops what is gone. Every object has a row: `ok`,
        `empty` or `rejected` with its reason.
        """
        op = context.op_execution_context
        with failures_by_class():
            done = in_groups(op, context.partition_keys, lambda keys: documents_group(op, keys, platform, engine))
            return _materialized(context, done)

    @follows(group_name="ingest", kinds={"spark", "deltalake"}, code_version=versions["chunks"])
    def chunks(
        context: dg.AssetExecutionContext, documents: TableSlice, platform: PlatformResource, engine: EngineResource
    ) -> dg.MaterializeResult[TableSlice]:
        """Spans of documents that are searched and cited, one row per chunk; key `chunk_id` within its lane.

        `text` is exactly the document's text from `char_start` to `char_end`.
        """
        op = context.op_execution_context
        with failures_by_class():
            done = in_groups(
                op, context.partition_keys, lambda keys: chunks_group(op, documents.of(*keys), platform, engine)
            )
            # Embedding wants the memory and the cores; what Spark is needed for is done.
            engine.release()
            return _materialized(context, done)

    @follows(
        group_name="ingest",
        kinds={"pytorch", "deltalake"},
        pool=EMBEDDING_POOL,
        code_version=versions["embeddings"],
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
        op = context.op_execution_context
        with failures_by_class():
            done = in_groups(
                op,
                context.partition_keys,
                lambda keys: embeddings_group(op, chunks.of(*keys), platform, embedding_launcher),
            )
            return _materialized(context, done)

    @follows(
        group_name="index",
        kinds={"milvus", "deltalake"},
        pool=MILVUS_POOL,
        code_version=versions["index_partitions"],
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
        op = context.op_execution_context
        with failures_by_class(), milvus.client() as client:
            done = in_groups(
                op,
                context.partition_keys,
                lambda keys: index_group(op, chunks.of(*keys), embeddings.of(*keys), platform, client),
            )
            return _materialized(context, done)

    return [documents, chunks, embeddings, index_partitions]


def _materialized(context: dg.AssetExecutionContext, done: StageDone) -> dg.MaterializeResult[TableSlice]:
    """Return the stage's result, with metadata for each partition.

    Dagster gives all partitions of a run one data version: here a digest over them. Each also has its own
    `content_digest`.

    Raises:
        Exception: Of the partitions that failed. Those that did not are committed, and have their materializations;
            Dagster would give them none, because the step fails.
    """
    report = stage_report(done.groups) if done.groups else None
    if done.failures:
        code_version = context.assets_def.code_versions_by_key.get(context.asset_key)
        for event in report.materializations(code_version) if report else ():
            context.log_event(event)
        raise _failed(context, done)
    assert report is not None
    for key, partition in report.partitions.items():
        # The partition's own figures come first, then those of the run; Dagster would put the run's first.
        own = {**partition.metadata, "content_digest": partition.content_digest}
        context.add_asset_metadata({**own, **report.run}, partition_key=key)
    current = done.groups[0].lanes[-1].slice
    value = TableSlice(current.store, current.table, tuple(context.partition_keys), report.version)
    return dg.MaterializeResult(value=value, data_version=dg.DataVersion(report.data_version))


def _failed(context: dg.AssetExecutionContext, done: StageDone) -> Exception:
    """Return what to raise: one error as it is, several as a failure that names each partition."""
    errors = list(done.failures.items())
    transient = next((error for _, error in errors if is_tried_again(context.op_execution_context, error)), None)
    if transient is not None:
        return transient
    if len({str(error) for _, error in errors}) == 1:
        return errors[0][1]
    listed = "\n".join(f"- {key}: {error}" for key, error in errors)
    return dg.Failure(
        description=f"{len(errors):,} of {len(context.partition_keys):,} partitions failed, the others are done:\n"
        f"{listed}",
        allow_retries=False,
    )
