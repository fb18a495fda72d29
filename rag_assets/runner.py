"""Run the jobs over all partitions of some sources in this process, and sum up what they say they did."""

import logging
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from rag_assets.instance import PROCESS_TAG, dagster_home, fail_dead_runs, process_tag, set_pool_limits
from rag_assets.jobs import CHECK_JOB, PUBLISH_JOB, STAGES
from rag_assets.materialize import FAILING_IN, HELD_BACK
from rag_assets.packed import FAILED_PARTITIONS, PACKED_JOB, run_config, run_tags
from rag_assets.publication import JUDGE_AGAIN_TAG, PUBLISH_AGAIN_TAG
from rag_assets.stage_work import ACCEPT_DELETIONS_TAG, NOT_BUILT, REBUILD_TAG
from rag_core.config import RagConfig
from rag_core.config_loader import LoadedConfig
from rag_core.embedding.manifest import remove_manifest
from rag_core.errors import ConfigError
from rag_core.freshness.dirty import dirty_partitions
from rag_core.freshness.observation import LookCursor, observe
from rag_core.packing import Item, ranges
from rag_core.packing import pack as packed
from rag_core.partitions import all_partition_keys, keys_by_source, source_of
from rag_core.quality.results import ALL_PARTITIONS
from rag_core.tables.store import Store
from resources.embedding import EmbeddingLauncherResource
from resources.platform import PlatformResource

_RANGE_START = "dagster/asset_partition_range_start"
_RANGE_END = "dagster/asset_partition_range_end"
_WORKER_IDLE_S = 20.0  # a command ends; what it started for embedding serves a next one, but does not linger
TOLD = {
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
    dg.DagsterEventType.STEP_FAILURE,
}
"""Events that say what a run did."""

_NAMED = 8  # partitions in a message; of more their number


@dataclass(frozen=True)
class Failure:
    """A step that failed for good, or left an index as it is although rag.yaml asks for it."""

    step: str
    partitions: str
    message: str


@dataclass
class RunSummary:
    """What all runs together did.

    `commits` counts Delta commits of asset tables. `checks` has outcome, description and failing partitions of each,
    `held` the partitions that are held back.
    """

    parsed: int = 0
    rejected: int = 0
    chunks: int = 0
    embedded: int = 0
    reused: int = 0
    upserted: int = 0
    deleted: int = 0
    repaired: int = 0
    commits: int = 0
    seconds: float = 0.0
    failures: list[Failure] = field(default_factory=list)
    checks: dict[str, tuple[str, str, frozenset[str]]] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)

    def checks_with(self, outcome: str) -> int:
        """Count the asset checks that passed, warned or failed."""
        return sum(one[0] == outcome for one in self.checks.values())

    def to_dict(self) -> dict[str, Any]:
        """Return the figures, in the order of the pipeline."""
        names = ("parsed", "rejected", "chunks", "embedded", "reused", "upserted", "deleted", "repaired", "commits")
        checks = {f"checks_{outcome}": self.checks_with(outcome) for outcome in ("passed", "warned", "failed")}
        return {**{name: getattr(self, name) for name in names}, **checks, "seconds": round(self.seconds, 2)}


def range_tags(run: Sequence[str]) -> dict[str, str]:
    """Return the tags that name the partitions of an asset run; they are contiguous."""
    return {_RANGE_START: run[0], _RANGE_END: run[-1]}


def stage_job(stage: str) -> str:
    """Return the name of the job of one stage."""
    return f"build_{stage}"


def run_pipeline(
    loaded: LoadedConfig,
    *,
    sources: Iterable[str] | None = None,
    stage: str | None = None,
    rebuild: bool = False,
    accept_deletions: bool = False,
) -> RunSummary:
    """Bring the partitions up to date source by source, test the tables, then judge and publish.

    Args:
        loaded: The configuration.
        sources: Names of sources; None means all.
        stage: Only this asset, without publication; None means all.
        rebuild: Let a changed setting embed everything anew.
        accept_deletions: Let most of a source vanish at once.

    Raises:
        ConfigError: A source or stage that does not exist.
    """
    config = loaded.config
    keys = all_partition_keys(config)
    chosen = _chosen(keys, sources, [source.name for source in config.sources])
    if stage is not None and stage not in STAGES:
        raise ConfigError(f"no stage {stage!r}; expected one of {', '.join(STAGES)}")
    summary, started = RunSummary(), time.perf_counter()
    tags = {tag: "allow" for tag, asked in ((REBUILD_TAG, rebuild), (ACCEPT_DELETIONS_TAG, accept_deletions)) if asked}
    with code_location(loaded) as (defs, instance):
        # A run never spans two sources: one that cannot be listed must not keep the others from being indexed.
        for of_source in keys_by_source(config, chosen).values():
            if stage is not None:
                job = defs.resolve_job_def(stage_job(stage))
                for run in ranges(of_source, keys, config.run.max_partitions_per_run):
                    execute(job, instance, {**range_tags(run), **tags}, f"{run[0]}..{run[-1]}", summary)
            else:
                _run_packed(defs, instance, config, of_source, tags, summary)
        if stage is None:
            check_and_publish(defs, instance, summary)
    summary.failures += failed_checks(summary)
    summary.seconds = time.perf_counter() - started
    return summary


def check_and_publish(defs: dg.Definitions, instance: dg.DagsterInstance, summary: RunSummary) -> None:
    """Test the tables, then judge and publish what rag.yaml asks for, if it is complete."""
    execute(defs.resolve_job_def(CHECK_JOB), instance, {}, "all partitions", summary)
    # Publication judges by itself whether the collection is complete, whatever failed before.
    execute(defs.resolve_job_def(PUBLISH_JOB), instance, {}, "all partitions", summary)


def _run_packed(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    config: RagConfig,
    keys: Sequence[str],
    tags: Mapping[str, str],
    summary: RunSummary,
) -> None:
    """Look at a source, and bring some of its partitions up to date, in as few runs as their size allows."""
    job = defs.resolve_job_def(PACKED_JOB)
    limits = config.run
    waiting = _look_at(config, source_of(keys[0]), accept_deletions=tags.get(ACCEPT_DELETIONS_TAG) == "allow")
    items = [Item(key, waiting.get(key, 1)) for key in keys]
    for pack in packed(items, max_items=limits.max_partitions_per_run, max_weight=limits.max_objects_per_run):
        named = f"{pack.partition_keys[0]}..{pack.partition_keys[-1]}"
        run_of = run_config(pack.partition_keys)
        execute(job, instance, run_tags(pack, "manual", tags), named, summary, config=run_of)


def _look_at(config: RagConfig, source: str, *, accept_deletions: bool) -> dict[str, int]:
    """Record what changed in a source, so that it counts as found now, and return the changed objects by partition.

    A source that cannot be looked at fails its run, which says why.
    """
    store, cursor = Store.of(config.store), LookCursor()
    while True:
        now = datetime.now(UTC)
        seen = observe(store, config, source, now=now, cursor=cursor, accept_shrink=accept_deletions)
        if seen.complete or seen.problem is not None or seen.cursor.position is None:
            break
        cursor = seen.cursor
    return {one.partition_key: one.objects for one in dirty_partitions(store, config, source, now=datetime.now(UTC))}


def run_publication(loaded: LoadedConfig, *, again: bool = False) -> RunSummary:
    """Judge and publish what rag.yaml asks for; one that was refused is judged again, whether it changed or not.

    Args:
        loaded: The configuration.
        again: Even if it was rolled back from.
    """
    summary = RunSummary()
    with code_location(loaded) as (defs, instance):
        tags = {JUDGE_AGAIN_TAG: "allow", **({PUBLISH_AGAIN_TAG: "allow"} if again else {})}
        execute(defs.resolve_job_def(PUBLISH_JOB), instance, tags, "all partitions", summary)
    summary.failures += failed_checks(summary)
    return summary


@contextmanager
def code_location(
    loaded: LoadedConfig, overrides: Mapping[str, object] | None = None
) -> Iterator[tuple[dg.Definitions, dg.DagsterInstance]]:
    """Load the code location and open its instance; runs of processes that died are marked as failed.

    Args:
        loaded: The configuration.
        overrides: Resources by name, replacing the default ones.
    """
    store = Store.of(loaded.config.store)
    if loaded.path is not None:
        os.environ["RAG_CONFIG"] = str(loaded.path)
    from definitions import build_defs

    platform = PlatformResource(config_path=str(loaded.path or ""))
    launcher = EmbeddingLauncherResource(platform=platform, idle_at_most_s=_WORKER_IDLE_S)
    defs = build_defs(config_path=loaded.path, overrides={"embedding_launcher": launcher, **(overrides or {})})
    with dg.DagsterInstance.from_config(str(dagster_home(store, loaded.config))) as instance:
        set_pool_limits(instance, loaded.config)
        for run_id in fail_dead_runs(instance):
            remove_manifest(store, run_id)
        yield defs, instance


def _chosen(keys: Sequence[str], sources: Iterable[str] | None, known: Sequence[str]) -> list[str]:
    if sources is None:
        return list(keys)
    names = set(sources)
    unknown = sorted(names - set(known))
    if unknown:
        raise ConfigError(f"no source {', '.join(unknown)}; expected one of {', '.join(known)}")
    return [key for key in keys if source_of(key) in names]


def execute(
    job: dg.JobDefinition,
    instance: dg.DagsterInstance,
    tags: Mapping[str, str],
    partitions: str,
    summary: RunSummary,
    *,
    config: Mapping[str, Any] | None = None,
    run_id: str | None = None,
) -> Sequence[dg.DagsterEvent]:
    """Run a job in this process, and add what it did to the summary.

    Args:
        job: Resolved.
        instance: Where the run is recorded.
        tags: Of the run.
        partitions: Which it is about, for messages.
        summary: Is added to.
        config: The run's.
        run_id: The run's; made up if not given.

    Returns:
        The run's events, of one that failed those in `TOLD`. A run that fails does not raise.
    """
    level = "INFO" if os.environ.get("RAG_VERBOSE") else "CRITICAL"
    logging.getLogger("dagster").setLevel(level)
    result = job.execute_in_process(
        instance=instance,
        tags={**tags, PROCESS_TAG: process_tag()},
        raise_on_error=False,
        run_id=run_id,
        run_config={**(config or {}), "loggers": {"console": {"config": {"log_level": level}}}},
    )
    events: Sequence[dg.DagsterEvent] = result.all_events
    if not result.success:
        # What a step logged before it failed is stored, but not in the result.
        stored = instance.all_logs(result.run_id, of_type=TOLD)
        events = [entry.dagster_event for entry in stored if entry.dagster_event is not None]
    add_events(events, partitions, summary)
    return events


def add_events(events: Iterable[dg.DagsterEvent], partitions: str, summary: RunSummary) -> None:
    """Add what a run did to a summary."""
    seen: set[str] = set()
    for event in events:
        if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            _count_check(summary, event.asset_check_evaluation_data)
        if event.is_step_failure:
            summary.failures += _step_failures(event, partitions)
        if event.is_step_materialization:
            _count_materialization(event, partitions, summary, seen)


def _step_failures(event: dg.DagsterEvent, partitions: str) -> list[Failure]:
    """Return what failed in a step: of a packed run each partition, of others the step as a whole."""
    data = event.step_failure_data
    user = data.user_failure_data
    if user is not None and FAILED_PARTITIONS in user.metadata:
        rows: Any = user.metadata[FAILED_PARTITIONS].value
        grouped: dict[tuple[str, str], list[str]] = {}
        for row in rows:
            grouped.setdefault((row["stage"], row["message"]), []).append(row["partition"])
        return [Failure(stage, _listed(keys), message) for (stage, message), keys in grouped.items()]
    error = data.error
    cause = error.cause or error if error is not None else None
    text = (user.description if user else None) or (cause.message.strip() if cause is not None else "unknown error")
    return [Failure(event.step_key or "", partitions, text)]


def _count_materialization(event: dg.DagsterEvent, partitions: str, summary: RunSummary, seen: set[str]) -> None:
    materialization = event.step_materialization_data.materialization
    asset = materialization.asset_key.to_user_string()
    summary.failures += _held_back(asset, materialization, summary)
    if asset in seen:
        return  # run figures are the same on the event of every partition: each asset counts once
    seen.add(asset)
    _add(summary, materialization.metadata)
    if NOT_BUILT in materialization.metadata:
        summary.failures.append(Failure(asset, partitions, str(materialization.metadata[NOT_BUILT].value)))


def _count_check(summary: RunSummary, evaluation: dg.AssetCheckEvaluation) -> None:
    """Keep the newest outcome of each check: every run of the job evaluates it about all partitions."""
    name = f"{evaluation.asset_key.to_user_string()}.{evaluation.check_name}"
    outcome = "passed" if evaluation.passed else "warned"
    if not evaluation.passed and evaluation.severity == dg.AssetCheckSeverity.ERROR:
        outcome = "failed"
    listed = evaluation.metadata.get(FAILING_IN)
    failing = frozenset(str(listed.value).split(", ")) if listed is not None else frozenset[str]()
    summary.checks[name] = (outcome, evaluation.description or "", failing)


def failed_checks(summary: RunSummary) -> list[Failure]:
    """Return the failed checks, but for those that are told of already, in held partitions or by the publication."""
    refused = any(failure.step == "published_index" for failure in summary.failures)
    return [
        Failure(f"check {name}", _listed(failing), description)
        for name, (outcome, description, failing) in sorted(summary.checks.items())
        if outcome == "failed"
        and not (failing and failing <= summary.held)
        and not (refused and name.startswith("index_verdict."))
    ]


def _listed(partitions: Collection[str]) -> str:
    if not partitions or ALL_PARTITIONS in partitions:
        return "all partitions"
    return ", ".join(sorted(partitions)) if len(partitions) <= _NAMED else f"{len(partitions):,} partitions"


def _held_back(step: str, materialization: dg.AssetMaterialization, summary: RunSummary) -> list[Failure]:
    """Return why a partition is held back, of its first stage only: those behind then differ from what is before."""
    partition = materialization.partition or "all partitions"
    if HELD_BACK not in materialization.metadata or partition in summary.held:
        return []
    summary.held.add(partition)
    reasons = materialization.metadata[HELD_BACK].value
    message = f"held back, its rows stay as they are, because of what it is made from:\n{reasons}"
    return [Failure(step, partition, message)]


def _add(summary: RunSummary, metadata: Any) -> None:
    values = {name: value.value for name, value in metadata.items()}
    for name in ("parsed", "rejected", "chunks", "embedded", "reused", "upserted", "deleted", "repaired"):
        setattr(summary, name, getattr(summary, name) + int(values.get(f"run_{name}", 0)))
    summary.commits += bool(values.get("committed") or values.get("manifest_changed"))
