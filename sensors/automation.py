"""The sensor that evaluates the conditions of `rag_assets.automation`, for all assets and checks."""

import dagster as dg

from rag_core.config import RagConfig

AUTOMATION_SENSOR = "automation"
_TICK_S = 30  # an evaluation takes some seconds of a core; changes of sources do not wait for it


def build_automation_sensor(config: RagConfig) -> dg.AutomationConditionSensorDefinition:
    """Make the sensor; it is on from the start if `automation.enabled`.

    Several partitions are asked for as one backfill, which Dagster cuts into runs of `run.max_partitions_per_run`;
    without backfills each partition would be a run.
    """
    return dg.AutomationConditionSensorDefinition(
        AUTOMATION_SENSOR,
        target=dg.AssetSelection.all() | dg.AssetSelection.all_asset_checks(),
        default_status=dg.DefaultSensorStatus.RUNNING if config.automation.enabled else dg.DefaultSensorStatus.STOPPED,
        minimum_interval_seconds=_TICK_S,
        emit_backfills=True,
        description="Lets a changed data version flow on to what is made of it; tests and publishes what changed.",
    )
