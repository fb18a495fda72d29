"""What Dagster knows that alerts look at: runs that ended, and the newest evaluation of a check."""

import logging
from datetime import UTC, datetime, timedelta
from typing import Final

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.tags import WILL_RETRY_TAG

from rag_core.alerts.facts import CheckFact
from rag_core.alerts.failing import EndedRun
from rag_core.partitions import source_of

# Failures of its partitions are in the table of passes; `stuck_partition` tells of those that do not get through.
_REPORTED_BY_PARTITION: Final = frozenset({"build_partitions"})
_SOURCE_TAG: Final = "rag/source"
_PARTITION_TAGS: Final = ("dagster/asset_partition_range_start", "dagster/partition")
_PUBLISHED: Final = dg.AssetKey("published_index")
_ENDED: Final = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
_UNENDED: Final = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]
_EVALUATED: Final = {AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED}

# Processes write the times of their runs themselves, so one can appear behind a later one; reading twice has no effect.
_OVERLAP: Final = timedelta(minutes=1)
_CAUSES_CHARS: Final = 2_000


def ended_runs(instance: dg.DagsterInstance, since: datetime, location: str | None) -> tuple[list[EndedRun], datetime]:
    """Return the runs that ended since a time, in the order in which they did, without those that Dagster tries again.

    Args:
        instance: Where runs are recorded.
        since: What this returned the last time: runs that were updated after it, and a minute before.
        location: Name of the code location; runs of others are left out. None: not known, all count.

    Returns:
        The runs, and when the newest of all was updated, by the clock that the instance goes by.
    """
    filters = dg.RunsFilter(statuses=_ENDED, updated_after=since - _OVERLAP)
    records = instance.get_run_records(filters, order_by="update_timestamp", ascending=True)
    newest = max((record.update_timestamp for record in records), default=since)
    found = [_ended(instance, record) for record in records if _counts(record.dagster_run, location)]
    return found, max(newest, since)


def _counts(run: dg.DagsterRun, location: str | None) -> bool:
    if run.job_name in _REPORTED_BY_PARTITION or run.tags.get(WILL_RETRY_TAG) == "true":
        return False
    return location is None or _location_of(run) in {None, location}


def _ended(instance: dg.DagsterInstance, record: dg.RunRecord) -> EndedRun:
    run = record.dagster_run
    failed, message, publishes = run.status == dg.DagsterRunStatus.FAILURE, "", _publishes(run)
    if failed:
        message = failure_message(instance, run.run_id)
    elif publishes and not _has_published(instance, run.run_id):
        # One that nobody asked for ends well all the same, and says why in its log.
        failed, message = True, _not_published(instance, run.run_id)
    return EndedRun(
        scope=_scope(run),
        run_id=run.run_id,
        at=datetime.fromtimestamp(record.end_time, UTC) if record.end_time else record.update_timestamp,
        failed=failed,
        publishes=publishes,
        message=message,
    )


def is_busy(instance: dg.DagsterInstance) -> bool:
    """Tell whether any run waits or goes on."""
    return bool(instance.get_runs(dg.RunsFilter(statuses=_UNENDED), limit=1))


def newest_check(instance: dg.DagsterInstance, asset: str, check: str) -> CheckFact | None:
    """Return the newest evaluation of a check; one that is planned or could not be executed is none."""
    key = dg.AssetCheckKey(dg.AssetKey(asset), check)
    records = instance.event_log_storage.get_asset_check_execution_history(key, limit=1, status=_EVALUATED)
    for record in records:
        evaluation = record.evaluation
        if evaluation is not None:
            at = datetime.fromtimestamp(record.create_timestamp, UTC)
            return CheckFact(evaluation.passed, at, record.run_id, evaluation.description or "")
    return None


def failure_message(instance: dg.DagsterInstance, run_id: str) -> str:
    """Return why the steps of a run failed, or else why the run did."""
    steps = []
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        event = entry.get_dagster_event()
        data = event.step_failure_data
        error = data.error
        cause = error.cause or error if error is not None else None
        said = data.user_failure_data.description if data.user_failure_data else None
        text = said or (cause.message.strip() if cause is not None else "no reason was recorded")
        steps.append(f"{event.step_key}: {text}")
    if not steps:
        entries = instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
        steps = [entry.get_dagster_event().message or "no reason was recorded" for entry in entries]
    return "\n".join(steps)[:_CAUSES_CHARS]


def _scope(run: dg.DagsterRun) -> str:
    """Name the job, with source or assets where the run is about some only."""
    if run.job_name.startswith("__ASSET_JOB"):
        names = sorted(key.to_user_string() for key in run.asset_selection or ())
        checks = sorted(key.to_user_string() for key in run.asset_check_selection or ()) if not names else []
        return ",".join(names or checks) or run.job_name
    partition = next((run.tags[tag] for tag in _PARTITION_TAGS if tag in run.tags), None)
    source = run.tags.get(_SOURCE_TAG) or (source_of(partition) if partition else None)
    return f"{run.job_name}/{source}" if source else run.job_name


def _publishes(run: dg.DagsterRun) -> bool:
    return run.job_name == "publish_index" or _PUBLISHED in (run.asset_selection or ())


def _has_published(instance: dg.DagsterInstance, run_id: str) -> bool:
    entries = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    return any(entry.get_dagster_event().asset_key == _PUBLISHED for entry in entries)


def _not_published(instance: dg.DagsterInstance, run_id: str) -> str:
    said = [entry.user_message for entry in instance.all_logs(run_id) if entry.level == logging.WARNING]
    return next((one for one in said if one.startswith("not published: ")), "the run did not get to it")


def _location_of(run: dg.DagsterRun) -> str | None:
    origin = run.remote_job_origin
    return origin.repository_origin.code_location_origin.location_name if origin is not None else None
