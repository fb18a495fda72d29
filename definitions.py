"""The Dagster code location: assembly only. Loads with an empty environment; nothing is opened or listed here."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path

import dagster as dg

# Backfill policies and Pipes are marked beta or preview in Dagster 1.13; the pinned version is what is tested, so the
# notices tell nobody anything.
for _category in (dg.BetaWarning, dg.PreviewWarning):
    warnings.filterwarnings("ignore", category=_category)

from dbt_like_checks.checks import build_checks, build_test_job  # noqa: E402
from dbt_like_checks.index_checks import build_index_checks, build_verify_job  # noqa: E402
from io_managers.delta import DeltaIOManager  # noqa: E402
from rag_assets.jobs import build_jobs  # noqa: E402
from rag_assets.packed import HANDOVER  # noqa: E402
from rag_assets.pool_waiting import wait_for_pools_asleep  # noqa: E402
from rag_assets.publication import build_publication_assets  # noqa: E402
from rag_assets.stages import build_stage_assets  # noqa: E402
from rag_core.config_loader import load_config  # noqa: E402
from rag_core.partitions import all_partition_keys  # noqa: E402
from resources.embedding import EmbeddingLauncherResource  # noqa: E402
from resources.engine import EngineResource  # noqa: E402
from resources.milvus import MilvusResource  # noqa: E402
from resources.platform import PlatformResource  # noqa: E402
from sensors.alerts import build_alert_sensor  # noqa: E402
from sensors.automation import build_automation_sensor  # noqa: E402
from sensors.schedules import build_schedules, build_verify_sensor  # noqa: E402
from sensors.slo import build_slo_checks, build_slo_sensor  # noqa: E402
from sensors.sources import build_source_sensors  # noqa: E402


def build_defs(*, config_path: Path | None = None, overrides: Mapping[str, object] | None = None) -> dg.Definitions:
    """Assemble the code location.

    Args:
        config_path: rag.yaml; default as `load_config` finds it (RAG_CONFIG, the current folder, the project's own).
        overrides: Resources by name, replacing the default ones.
    """
    # A source that is not there fails its own runs, not the whole code location.
    loaded = load_config(config_path, check_files=False)
    config = loaded.config
    partitions = dg.StaticPartitionsDefinition(all_partition_keys(config))
    platform = PlatformResource(config_path=str(loaded.path or ""))
    resources = {
        "platform": platform,
        "engine": EngineResource(platform=platform),
        "embedding_launcher": EmbeddingLauncherResource(platform=platform),
        "milvus": MilvusResource(platform=platform),
        "io_manager": DeltaIOManager(platform=platform),
        HANDOVER: dg.mem_io_manager,
        **(overrides or {}),
    }
    return dg.Definitions(
        assets=[*build_stage_assets(config, partitions), *build_publication_assets(config)],
        asset_checks=[*build_checks(config), *build_index_checks(config), *build_slo_checks(config)],
        jobs=[*build_jobs(config), build_test_job(config), build_verify_job()],
        sensors=[
            *build_source_sensors(config),
            build_automation_sensor(config),
            build_verify_sensor(config),
            build_slo_sensor(config),
            build_alert_sensor(config),
        ],
        schedules=build_schedules(config),
        resources=resources,
        # One process a run: a further one for each step would take longer to start than most steps take.
        executor=dg.in_process_executor,
    )


os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "yes")
wait_for_pools_asleep()

defs = build_defs()
