"""The unpartitioned assets: what is served, and how well it retrieves."""

import json
from dataclasses import asdict

import dagster as dg

from rag_assets.materialize import OWNERS, RETRY, failures_by_class
from rag_core import ids
from rag_core.stages.publication import SearchChoice, generations, publish
from resources.milvus import MilvusResource
from resources.platform import PlatformResource


@dg.asset(
    deps=["index_partitions"],
    retry_policy=RETRY,
    group_name="index",
    owners=OWNERS,
    kinds={"milvus", "deltalake"},
    pool="milvus_writes",
    code_version="1",
)
def published_index(
    context: dg.AssetExecutionContext, platform: PlatformResource, milvus: MilvusResource
) -> dg.MaterializeResult[None]:
    """The manifest of what is served, one row per publication; key `collection`.

    Points the alias that queries use at the collection once every partition is complete; until then the collection
    before stays published.
    """
    with failures_by_class(), milvus.client() as client:
        target = generations(platform.store, platform.config).target
        choice = SearchChoice(json.dumps(platform.config.index.search_params, sort_keys=True), None)
        publication = publish(platform.store, target, client, choice=choice, run_id=context.run_id)
        if publication.manifest is None:
            waiting = ", ".join(f"{key} ({count:,} chunks)" for key, count in publication.incomplete.items())
            raise dg.Failure(
                description=f"not published: the collection is incomplete; materialize index_partitions of {waiting}",
                metadata={"incomplete_partitions": dg.MetadataValue.json(publication.incomplete)},
                allow_retries=False,
            )
        manifest = asdict(publication.manifest)
        version = ids.digest(*(f"{name}={value}" for name, value in manifest.items() if name != "published_at"))
        return dg.MaterializeResult(
            metadata={
                **{name: str(value) for name, value in manifest.items() if name not in {"documents", "chunks"}},
                "documents": publication.manifest.documents,
                "chunks": publication.manifest.chunks,
                "manifest_changed": publication.changed,
                "table_version": publication.version,
            },
            data_version=dg.DataVersion(version),
        )
