"""What happens at times of day: the reconciliation of everything, the verification after it, retention, backups."""

from collections.abc import Iterator, Sequence
from datetime import UTC

import dagster as dg

from dbt_like_checks.index_checks import VERIFY_JOB
from rag_assets.automation import cron
from rag_assets.packed import PACKED_JOB, REASON_TAG, run_config, run_tags
from rag_assets.upkeep import BACKUP_JOB, RETENTION_JOB
from rag_core.config import RagConfig
from rag_core.packing import Item, Pack, pack
from rag_core.partitions import partition_keys_of

RECONCILE_TAG = "rag/reconcile"
"""Of the runs of one reconciliation: when it began, UTC."""

_REASON = "reconcile"
_LOOK_S = 60
_ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
_UNENDED = [status for status in dg.DagsterRunStatus if status not in _ENDED]


def build_schedules(config: RagConfig) -> Sequence[dg.ScheduleDefinition]:
    """Make the schedules; they are on from the start if `automation.enabled`. Times are UTC.

    Raises:
        ConfigError: A cron string of `automation` is wrong.
    """
    status = dg.DefaultScheduleStatus.RUNNING if config.automation.enabled else dg.DefaultScheduleStatus.STOPPED

    @dg.schedule(
        name=_REASON,
        job_name=PACKED_JOB,
        cron_schedule=cron(config, "reconcile_cron"),
        default_status=status,
        description="Compares every object of every source with every ledger, and mends what differs.",
    )
    def reconcile(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        if unended := _unended(context.instance):
            yield dg.SkipReason(f"{len(unended):,} runs of the reconciliation before have not ended")
            return
        began = context.scheduled_execution_time.astimezone(UTC).isoformat(timespec="minutes")
        for number, one in enumerate(packs_of_everything(config)):
            yield dg.RunRequest(
                run_key=f"{_REASON}/{began}/{number}",
                run_config=run_config(one.partition_keys),
                tags=run_tags(one, _REASON, {RECONCILE_TAG: began}),
            )

    retention = dg.ScheduleDefinition(
        name="retention",
        job_name=RETENTION_JOB,
        cron_schedule=cron(config, "retention_cron"),
        default_status=status,
        description="Removes what rag.yaml does not keep any longer.",
    )
    backup = dg.ScheduleDefinition(
        name=BACKUP_JOB,
        job_name=BACKUP_JOB,
        cron_schedule=cron(config, "backup_cron"),
        default_status=status if config.backup.to else dg.DefaultScheduleStatus.STOPPED,
        description="Takes a snapshot of the tables to `backup.to`; off where none is configured.",
    )
    return [reconcile, retention, backup]


def build_verify_sensor(config: RagConfig) -> dg.SensorDefinition:
    """Make the sensor that has Milvus compared with its ledger when a reconciliation has ended, however long it took.

    Tests and publication need no sensor of their own: they follow the materializations of the reconciliation.
    """

    @dg.sensor(
        name="verify_after_reconcile",
        job_name=VERIFY_JOB,
        minimum_interval_seconds=_LOOK_S,
        default_status=dg.DefaultSensorStatus.RUNNING if config.automation.enabled else dg.DefaultSensorStatus.STOPPED,
        description="Compares Milvus with its ledger, by two read paths, when the nightly reconciliation has ended.",
    )
    def verify_after_reconcile(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        newest = context.instance.get_runs(dg.RunsFilter(tags={REASON_TAG: _REASON}), limit=1)
        began = newest[0].tags.get(RECONCILE_TAG) if newest else None
        if began is None:
            return dg.SkipReason("there was no reconciliation yet")
        if unended := _unended(context.instance):
            return dg.SkipReason(f"{len(unended):,} runs of the reconciliation of {began} have not ended")
        return dg.RunRequest(run_key=f"verify/{began}", tags={RECONCILE_TAG: began})

    return verify_after_reconcile


def packs_of_everything(config: RagConfig) -> Iterator[Pack]:
    """Yield all partitions of all sources, packed; a run has those of one source."""
    for source in config.sources:
        items = [Item(key) for key in partition_keys_of(config, source.name)]
        yield from pack(items, max_items=config.run.max_partitions_per_run, max_weight=config.run.max_objects_per_run)


def _unended(instance: dg.DagsterInstance) -> Sequence[dg.DagsterRun]:
    return instance.get_runs(dg.RunsFilter(tags={REASON_TAG: _REASON}, statuses=_UNENDED))
