"""The four partitioned assets. Each reads slices, calls one pure function of `rag_core.stages`, and commits."""

from collections.abc import Sequence

import dagster as dg

from rag_assets.materialize import OWNERS, RETRY, failures_by_class, materialize
from rag_core import ids
from rag_core.config import RagConfig
from rag_core.embedding.model import resolve_model
from rag_core.engine.chunkers import chunker_fingerprints
from rag_core.index.schema import SCHEMA_VERSION
from rag_core.parsing.settings import ParseSettings, parser_fingerprint
from rag_core.stages.chunks import chunks_change
from rag_core.stages.documents import documents_change
from rag_core.stages.embeddings import embeddings_change, plan_embeddings
from rag_core.stages.index import IndexTables, index_change
from rag_core.stages.publication import collection_name
from rag_core.stages.retirement import retire
from rag_core.tables.delta import TableSlice
from resources.embedding import EmbeddingLauncherResource
from resources.engine import EngineResource
from resources.milvus import MilvusResource
from resources.platform import PlatformResource
from resources.progress import progress_of

MILVUS_POOL = "milvus_writes"
EMBEDDING_POOL = "embedding"


def build_stage_assets(config: RagConfig, partitions: dg.PartitionsDefinition[str]) -> Sequence[dg.AssetsDefinition]:
    """Make the partitioned assets for a configuration; code versions are digests of what would change their rows."""
    policy = dg.BackfillPolicy.multi_run(max_partitions_per_run=config.run.max_partitions_per_run)
    parsing = [parser_fingerprint(ParseSettings.of(config.parsing, source)) for source in config.sources]
    chunking = [config.chunking_of(source).model_dump() for source in config.sources]
    embedding = config.embedding.model_dump(include={"backend", "model", "revision", "max_tokens", "passage_prefix"})

    @dg.asset(
        partitions_def=partitions,
        backfill_policy=policy,
        retry_policy=RETRY,
        group_name="ingest",
        owners=OWNERS,
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
            return materialize(context, output, preview=("uri", "status", "title", "mime", "language"))

    @dg.asset(
        partitions_def=partitions,
        backfill_policy=policy,
        retry_policy=RETRY,
        group_name="ingest",
        owners=OWNERS,
        kinds={"spark", "deltalake"},
        code_version=ids.fingerprint({"chunking": chunking, "model": embedding})[:12],
    )
    def chunks(
        context: dg.AssetExecutionContext, documents: TableSlice, platform: PlatformResource, engine: EngineResource
    ) -> dg.MaterializeResult[TableSlice]:
        """Spans of documents that are searched and cited, one row per chunk; key `chunk_id`.

        `text` is exactly the document's text from `char_start` to `char_end`.
        """
        with failures_by_class():
            output = chunks_change(
                documents,
                platform.slice("chunks", context.partition_keys),
                platform.config,
                engine.engine(),
                chunker_fingerprints(platform.config),
                on_progress=progress_of(context),
            )
            result = materialize(context, output, preview=("title", "heading_path", "token_count", "text"))
            # Embedding wants the memory and the cores; what Spark is needed for is done.
            engine.release()
            return result

    @dg.asset(
        partitions_def=partitions,
        backfill_policy=policy,
        retry_policy=RETRY,
        group_name="ingest",
        owners=OWNERS,
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
        """Unit vectors of the chunks' texts, one row per chunk; key `chunk_id`.

        A text is embedded once per model: what the vector cache holds is reused, whichever document or partition it
        came from.
        """
        with failures_by_class():
            spec = resolve_model(platform.config.embedding)
            current = platform.slice("embeddings", context.partition_keys)
            plan = plan_embeddings(chunks, current, platform.config, spec, run_id=context.run_id)
            context.log.info(f"{plan.texts - plan.missing:,} of {plan.texts:,} texts are in the vector cache")
            report = embedding_launcher.run(context, plan.manifest, progress_of(context)) if plan.manifest else {}
            output = embeddings_change(plan, spec)
            return materialize(
                context,
                output,
                preview=("chunk_id", "text_hash", "model_fingerprint"),
                extra={"model": spec.name, **{f"worker_{name}": value for name, value in report.items()}},
            )

    @dg.asset(
        partitions_def=partitions,
        backfill_policy=policy,
        retry_policy=RETRY,
        group_name="index",
        owners=OWNERS,
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

        Upserts what is new, reads it back, deletes what is gone, counts, and only then writes the ledger.
        """
        with failures_by_class(), milvus.client() as client:
            spec = resolve_model(platform.config.embedding)
            collection = collection_name(platform.config, spec)
            client.ensure_collection(collection, dim=spec.dim, model_fingerprint=spec.fingerprint)
            retired = retire(platform.store, platform.config, client, collection, run_id=context.run_id)
            ledger = platform.slice("index_partitions", context.partition_keys)
            output = index_change(
                IndexTables(chunks, embeddings, ledger),
                client,
                collection,
                spec.fingerprint,
                on_progress=progress_of(context),
            )
            return materialize(
                context,
                output,
                preview=("chunk_id", "doc_id", "indexed_at"),
                extra={"collection": collection, "retired_partitions": ", ".join(retired) or "none"},
            )

    return [documents, chunks, embeddings, index_partitions]
