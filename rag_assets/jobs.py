"""Jobs: the whole index, each stage, each source, publication. Those of upkeep are in `rag_assets.upkeep`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg

from rag_assets.packed import SOURCE_TAG, build_packed_job
from rag_assets.upkeep import back_up, maintain_tables, retention
from rag_core.config import RagConfig
from rag_core.freshness.slo import check_name

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

STAGES = ("documents", "chunks", "embeddings", "index_partitions")

BUILD_JOB = "build_index"
PUBLISH_JOB = "publish_index"
TEST_JOB = "test_tables"
CHECK_JOB = "check_index"


def build_jobs(config: RagConfig) -> Sequence["dg.JobDefinition | UnresolvedAssetJobDefinition"]:
    """Make the jobs for a configuration."""
    # Reading every id back from Milvus is no part of an ordinary run: each verdict does it, and the job `verify_index`.
    # How fresh a source is, is known after a run, and evaluated by a sensor.
    names = ("anti_entropy", *(check_name(source.name) for source in config.sources))
    left_out = dg.AssetSelection.checks(*(dg.AssetCheckKey(dg.AssetKey("index_partitions"), name) for name in names))
    whole = dg.define_asset_job(
        BUILD_JOB,
        selection=dg.AssetSelection.assets(*STAGES) - left_out,
        description="Documents to index, for the chosen partitions. What is unchanged is skipped.",
    )
    publish = dg.define_asset_job(
        PUBLISH_JOB,
        selection=["retrieval_eval", "index_verdict", "published_index"],
        description="Judge the complete collection, and point the alias at it if it passes.",
    )
    checks = dg.define_asset_job(
        CHECK_JOB,
        selection=dg.AssetSelection.checks_for_assets(*STAGES) - left_out,
        description="All checks of the stages' tables. What was tested and did not change is not tested again.",
    )
    stages = [
        dg.define_asset_job(
            f"build_{stage}",
            selection=dg.AssetSelection.assets(stage) - left_out,
            description=f"Only the stage {stage}.",
        )
        for stage in STAGES
    ]
    sources = [
        dg.define_asset_job(
            f"build_source_{source.name}",
            selection=dg.AssetSelection.assets(*STAGES) - left_out,
            tags={SOURCE_TAG: source.name},
            description=f"Documents to index of source {source.name} (partitions {source.name}__*).",
        )
        for source in config.sources
    ]
    return [build_packed_job(config), whole, checks, publish, *stages, *sources, maintain_tables, retention, back_up]
