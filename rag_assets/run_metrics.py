"""Metrics of Dagster's runs, for alerts and for autoscaling: the queue, what goes on, what failed, pools, daemons."""

from collections import Counter as Counts
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import dagster as dg
from dagster._daemon.controller import get_daemon_statuses
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from rag_assets.packed import PRIORITIES, REASON_TAG
from rag_core.monitoring.group import SECONDS, begin_at_zero, replace_all

STATES: Final[Mapping[str, Sequence[dg.DagsterRunStatus]]] = {
    "queued": (dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED),
    "starting": (dg.DagsterRunStatus.STARTING,),
    "started": (dg.DagsterRunStatus.STARTED,),
    "canceling": (dg.DagsterRunStatus.CANCELING,),
}
ENDED: Final = {
    dg.DagsterRunStatus.SUCCESS: "success",
    dg.DagsterRunStatus.FAILURE: "failure",
    dg.DagsterRunStatus.CANCELED: "canceled",
}
REASONS: Final = (*PRIORITIES, "other")
_STATE_OF: Final = {status: state for state, statuses in STATES.items() for status in statuses}
_OVERLAP: Final = timedelta(minutes=5)  # processes write the times of their runs themselves
_JOBS_AT_MOST: Final = 100
_OTHER_JOB: Final = "other"


class RunMetrics:
    """What the Dagster instance knows. It is asked for runs that have not ended, and for those that just did."""

    name = "runs"

    def __init__(self, open_instance: Callable[[], dg.DagsterInstance], pools: Sequence[str]) -> None:
        """Say how to reach the instance.

        Args:
            open_instance: Opens where runs are recorded; called until it succeeds.
            pools: Pools whose places are told of, besides those that have a limit.
        """
        self._open, self._pools = open_instance, tuple(pools)
        self._opened: dg.DagsterInstance | None = None
        self._ended: frozenset[str] | None = None
        self._since: datetime | None = None
        self._jobs: set[str] = set()
        self.registry = r = CollectorRegistry()
        self._runs = Gauge(
            "rag_runs", "Runs that have not ended: queued, starting, started, canceling; by why they were asked for.",
            ["state", "reason"], registry=r,
        )  # fmt: skip
        self._oldest = Gauge("rag_run_queue_oldest_seconds", "How long the first of the queue waits.", registry=r)
        self._longest = Gauge("rag_run_longest_seconds", "How long the longest run goes on.", registry=r)
        self._done = Counter("rag_runs_ended", "Runs that ended.", ["dagster_job", "status"], registry=r)
        self._seconds = Histogram(
            "rag_run_duration_seconds",
            "From the start of a run to its end.",
            ["dagster_job"],
            buckets=SECONDS,
            registry=r,
        )
        self._slots = Gauge("rag_pool_slots", "Steps of a pool that may go on at once.", ["pool"], registry=r)
        self._used = Gauge("rag_pool_slots_used", "Steps that do.", ["pool"], registry=r)
        self._waiting = Gauge("rag_pool_steps_waiting", "Steps that wait for a place.", ["pool"], registry=r)
        self._healthy = Gauge(
            "rag_daemon_healthy", "1 if a daemon that is needed gave a sign of life in time.", ["daemon"], registry=r
        )
        self._heartbeat = Gauge(
            "rag_daemon_last_heartbeat_timestamp_seconds", "When it last did.", ["daemon"], registry=r
        )
        begin_at_zero(self._done, [(job, status) for job in _FROM_THE_START for status in ENDED.values()])

    def update(self, now: datetime) -> None:
        """Ask the instance."""
        self._unended(now)
        self._count_ended(now)
        self._look_at_pools()
        daemons = get_daemon_statuses(self._instance, self._instance.get_required_daemon_types(), now.timestamp())
        beats = {name: one.last_heartbeat.timestamp if one.last_heartbeat else 0.0 for name, one in daemons.items()}
        replace_all(self._healthy, {(name,): float(bool(one.healthy)) for name, one in daemons.items()})
        replace_all(self._heartbeat, {(name,): beat for name, beat in beats.items()})

    @property
    def _instance(self) -> dg.DagsterInstance:
        if self._opened is None:
            self._opened = self._open()
        return self._opened

    def close(self) -> None:
        """Let go of the instance."""
        if self._opened is not None:
            self._opened.dispose()

    def _unended(self, now: datetime) -> None:
        records = self._instance.get_run_records(dg.RunsFilter(statuses=list(_STATE_OF)))
        counts = Counts((_STATE_OF[one.dagster_run.status], _reason(one.dagster_run)) for one in records)
        replace_all(self._runs, {(state, reason): counts[state, reason] for state in STATES for reason in REASONS})
        queued = [one.create_timestamp for one in records if _STATE_OF[one.dagster_run.status] == "queued"]
        started = [one.start_time for one in records if one.start_time is not None]
        self._oldest.set(max(0.0, (now - min(queued)).total_seconds()) if queued else 0.0)
        self._longest.set(max(0.0, now.timestamp() - min(started)) if started else 0.0)

    def _count_ended(self, now: datetime) -> None:
        """Count runs that ended since the last time; the counters begin at 0."""
        since = self._since or now - _OVERLAP
        filters = dg.RunsFilter(statuses=list(ENDED), updated_after=since - _OVERLAP)
        records = self._instance.get_run_records(filters)
        known, self._ended = self._ended, frozenset(one.dagster_run.run_id for one in records)
        self._since = max((one.update_timestamp for one in records), default=since)
        if known is None:
            return
        for record in records:
            run = record.dagster_run
            if run.run_id in known:
                continue
            job = self._job(run)
            self._done.labels(job, ENDED[run.status]).inc()
            if record.start_time is not None and record.end_time is not None:
                self._seconds.labels(job).observe(max(0.0, record.end_time - record.start_time))

    def _look_at_pools(self) -> None:
        storage = self._instance.event_log_storage
        if not storage.supports_global_concurrency_limits:
            return
        names = sorted({*self._pools, *storage.get_concurrency_keys()})
        infos = {name: storage.get_concurrency_info(name) for name in names}
        replace_all(self._slots, {(name,): one.limit or one.slot_count for name, one in infos.items()})
        replace_all(self._used, {(name,): one.active_slot_count for name, one in infos.items()})
        replace_all(self._waiting, {(name,): one.pending_step_count for name, one in infos.items()})

    def _job(self, run: dg.DagsterRun) -> str:
        """Name a run's job; an instance that others use as well may have any number of them."""
        name = "asset_job" if run.job_name.startswith("__ASSET_JOB") else run.job_name
        if name not in self._jobs and len(self._jobs) >= _JOBS_AT_MOST:
            return _OTHER_JOB
        self._jobs.add(name)
        return name


_FROM_THE_START: Final = ("build_partitions", "publish_index", "check_index", "asset_job")


def _reason(run: dg.DagsterRun) -> str:
    reason = run.tags.get(REASON_TAG, "backfill" if "dagster/backfill" in run.tags else "other")
    return reason if reason in REASONS else "other"
