"""What all checks with an evaluation per partition share."""

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData


def target_of(
    context: dg.AssetCheckExecutionContext, table: str, partition: str | None
) -> AssetCheckEvaluationTargetMaterializationData | None:
    """Name the materialization that is tested; without it the UI cannot tell that a check is of an older one."""
    found = context.instance.fetch_materializations(
        dg.AssetRecordsFilter(
            asset_key=dg.AssetKey(table), asset_partitions=None if partition is None else [partition]
        ),
        limit=1,
    )
    if not found.records:
        return None
    record = found.records[0]
    return AssetCheckEvaluationTargetMaterializationData(
        run_id=record.event_log_entry.run_id, storage_id=record.storage_id, timestamp=record.timestamp
    )
