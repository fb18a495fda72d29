"""The runs of a backfill: in this process, or in the queue of the Dagster instance, where a daemon executes them."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import dagster as dg
from dagster._cli.job import _create_run  # what `dagster job launch` does; 1.13 exports nothing for it
from dagster._core.remote_representation.code_location import CodeLocation
from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
from dagster._core.workspace.load_target import ModuleTarget

from rag_assets.backfill import Driver, Ended, Observer, claim, resumed
from rag_assets.materialize import HELD_BACK
from rag_assets.packed import PACKED_JOB, PRIORITIES, REASON_TAG, run_config, run_tags
from rag_assets.runner import (
    TOLD,
    Failure,
    RunSummary,
    add_events,
    check_and_publish,
    code_location,
    execute,
    failed_checks,
    range_tags,
    stage_job,
)
from rag_assets.stage_work import ACCEPT_DELETIONS_TAG, NOT_BUILT, REBUILD_TAG
from rag_core.backfill.results import Result
from rag_core.backfill.state import Backfill, Outcome, Settings
from rag_core.config_loader import LoadedConfig
from rag_core.packing import Pack
from rag_core.partitions import source_of
from rag_core.tables.locks import LEASE_S, exclusive
from rag_core.tables.store import Store

BACKFILL_TAG: Final = "rag/backfill"
"""Tag of a run: the id of the backfill that asked for it."""

_LOCATION: Final = "definitions"  # as `rag dev` names it


@dataclass(frozen=True)
class Request:
    """A run to be made: name of the job, tags, configuration."""

    job: str
    tags: Mapping[str, str]
    config: Mapping[str, Any] = field(default_factory=dict)


def request_of(backfill: Backfill, partition_keys: Sequence[str]) -> Request:
    """Return the run that brings partitions of one source up to date."""
    settings = backfill.settings
    allowed = ((REBUILD_TAG, settings.rebuild), (ACCEPT_DELETIONS_TAG, settings.accept_deletions))
    extra = {BACKFILL_TAG: backfill.id, **{tag: "allow" for tag, asked in allowed if asked}}
    if settings.stage is None:
        pack = Pack(tuple(partition_keys), len(partition_keys))
        return Request(PACKED_JOB, run_tags(pack, "backfill", extra), run_config(partition_keys))
    tags = {REASON_TAG: "backfill", "rag/source": source_of(partition_keys[0])}
    priority = {"dagster/priority": str(PRIORITIES["backfill"])}
    return Request(stage_job(settings.stage), {**tags, **priority, **range_tags(partition_keys), **extra})


@dataclass
class InProcess:
    """Executes each run here; `summary` adds up what they did, `not_built` says why an index was left as it is."""

    defs: dg.Definitions
    instance: dg.DagsterInstance
    backfill: Backfill
    summary: RunSummary = field(default_factory=RunSummary)
    not_built: dict[str, None] = field(default_factory=dict)
    queues: bool = False
    _ended: dict[str, Ended] = field(default_factory=dict)

    def start(self, run_id: str, partition_keys: Sequence[str]) -> None:
        """Execute a run to its end."""
        request = request_of(self.backfill, partition_keys)
        started = time.perf_counter()
        events = execute(
            self.defs.resolve_job_def(request.job),
            self.instance,
            request.tags,
            f"{partition_keys[0]}..{partition_keys[-1]}",
            self.summary,
            config=request.config,
            run_id=run_id,
        )
        self.not_built |= dict.fromkeys(_not_built(events))
        outcomes = stage_outcomes(self.backfill.settings, events, partition_keys)
        self._ended[run_id] = Ended(time.perf_counter() - started, outcomes)

    def ended(self, run_ids: Sequence[str]) -> dict[str, Ended]:
        """Return the runs that have ended: of this process, and those that were queued before."""
        found = {run_id: self._ended.pop(run_id) for run_id in run_ids if run_id in self._ended}
        for run_id in run_ids:
            run = self.instance.get_run_by_id(run_id) if run_id not in found else None
            if run is not None and run.is_finished:
                found[run_id] = Ended(0.0)
        return found


@dataclass
class Queue:
    """Puts runs into the queue of the instance, and follows them; else like `InProcess`."""

    workspace: WorkspaceProcessContext
    instance: dg.DagsterInstance
    backfill: Backfill
    summary: RunSummary = field(default_factory=RunSummary)
    not_built: dict[str, None] = field(default_factory=dict)
    queues: bool = True
    _keys: dict[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._keys |= {run.run_id: run.partition_keys for run in self.backfill.runs}

    def start(self, run_id: str, partition_keys: Sequence[str]) -> None:
        """Queue a run."""
        self._keys[run_id] = partition_keys
        request = request_of(self.backfill, partition_keys)
        context: WorkspaceRequestContext = self.workspace.create_request_context()
        location: CodeLocation = context.code_locations[0]
        repository = next(iter(location.get_repositories().values()))
        job = repository.get_full_job(request.job)
        _create_run(self.instance, location, repository, job, request.config, request.tags, None, run_id)
        self.instance.submit_run(run_id, context)

    def ended(self, run_ids: Sequence[str]) -> dict[str, Ended]:
        """Return the runs that have ended."""
        found: dict[str, Ended] = {}
        for record in self.instance.get_run_records(dg.RunsFilter(run_ids=list(run_ids))):
            run = record.dagster_run
            if not run.is_finished:
                continue
            keys = self._keys[run.run_id]
            logged = self.instance.all_logs(run.run_id, of_type=TOLD)
            events = [entry.dagster_event for entry in logged if entry.dagster_event is not None]
            add_events(events, f"{keys[0]}..{keys[-1]}", self.summary)
            self.not_built |= dict.fromkeys(_not_built(events))
            seconds = (record.end_time or 0.0) - (record.start_time or record.end_time or 0.0)
            found[run.run_id] = Ended(seconds, stage_outcomes(self.backfill.settings, events, keys))
        return found


@dataclass(frozen=True)
class Report:
    """What a backfill came to.

    Attributes:
        backfill: As it was saved last.
        results: Of each partition.
        summary: What the runs of this session did.
        problems: Why an index was left as it is, checks that fail, and why nothing was published.
        seconds: Wall time of this session.
    """

    backfill: Backfill
    results: Mapping[str, Result]
    summary: RunSummary
    problems: tuple[Failure, ...]
    seconds: float


def run_backfill(
    loaded: LoadedConfig,
    backfill: Backfill,
    observer: Observer,
    *,
    resume: bool = False,
    expected_s: float | None = None,
    overrides: Mapping[str, object] | None = None,
) -> Report:
    """Work on a backfill to its end, then test and publish; with `submit` a daemon does the work, and publishes.

    Args:
        loaded: The configuration.
        backfill: A new one, or one that was read from the store.
        observer: Is told how it goes on.
        resume: Whether it is to go on where it stopped.
        expected_s: Seconds that it should take, for the time that is left.
        overrides: Resources by name, replacing the default ones, of runs in this process.

    Raises:
        TransientError: Another process works on it.
    """
    started = time.perf_counter()
    store, config = Store.of(loaded.config.store), loaded.config
    after = RunSummary()
    with code_location(loaded, overrides) as (defs, instance), ExitStack() as stack:
        if not store.is_local:  # other machines may share it; a lease of a process that was killed ends meanwhile
            stack.enter_context(exclusive(store, f"backfills/{backfill.id}", timeout_s=LEASE_S + 5.0))
        backfill = resumed(store, instance, backfill) if resume else claim(store, backfill)
        executor: InProcess | Queue
        if backfill.settings.submit:
            executor = stack.enter_context(queue(instance, backfill))
        else:
            executor = InProcess(defs, instance, backfill)
        backfill, results = Driver(store, config, instance, executor, observer).run(backfill, expected_s)
        made = any(run.session == backfill.session for run in backfill.runs)
        if made and not backfill.settings.submit and backfill.settings.stage is None:
            observer.say("tests the tables, judges and publishes")
            after.held |= executor.summary.held
            check_and_publish(defs, instance, after)
    left = [Failure("embeddings", "some partitions", message) for message in executor.not_built]
    problems = (*left, *after.failures, *failed_checks(after))
    return Report(backfill, results, executor.summary, problems, time.perf_counter() - started)


@contextmanager
def queue(instance: dg.DagsterInstance, backfill: Backfill) -> Iterator[Queue]:
    """Load the code location as a daemon does, which is what queued runs are made with."""
    target = ModuleTarget(
        module_name="definitions", attribute=None, working_directory=None, location_name=location_name(instance)
    )
    with WorkspaceProcessContext(instance, target) as workspace:
        yield Queue(workspace, instance, backfill)


def location_name(instance: dg.DagsterInstance) -> str:
    """Return the name under which the daemon of an instance knows the code location: that of its sensors."""
    for state in instance.all_instigator_state():
        return str(state.origin.repository_origin.code_location_origin.location_name)
    return _LOCATION


def stage_outcomes(
    settings: Settings, events: Iterable[dg.DagsterEvent], partition_keys: Sequence[str]
) -> dict[str, Outcome]:
    """Return what became of the partitions of a run of a single stage; nothing for runs that keep passes."""
    if settings.stage is None:
        return {}
    found: dict[str, Outcome] = {}
    failure = Outcome("failed", settings.stage, "transient", "the run ended before it was done")
    for event in events:
        if event.is_step_materialization and event.partition is not None:
            held = event.step_materialization_data.materialization.metadata.get(HELD_BACK)
            found[event.partition] = (
                Outcome("ok") if held is None else Outcome("held", settings.stage, "permanent", str(held.value))
            )
        elif event.is_step_failure:
            failure = _failure(settings.stage, event)
    return {key: found.get(key, failure) for key in partition_keys}


def _failure(stage: str, event: dg.DagsterEvent) -> Outcome:
    data = event.step_failure_data
    if data.user_failure_data is not None:  # raised as dg.Failure: for good
        return Outcome("failed", stage, "permanent", data.user_failure_data.description or "failed")
    error = data.error
    cause = error.cause or error if error is not None else None
    return Outcome("failed", stage, "transient", cause.message.strip() if cause is not None else "unknown error")


def _not_built(events: Iterable[dg.DagsterEvent]) -> list[str]:
    return [
        str(event.step_materialization_data.materialization.metadata[NOT_BUILT].value)
        for event in events
        if event.is_step_materialization and NOT_BUILT in event.step_materialization_data.materialization.metadata
    ]
