"""A sensor for each source: looks at it, and asks for runs of the partitions that changes wait in.

A tick lists (or takes notifications), compares, and writes down what changed. It downloads nothing and parses nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import dagster as dg

from rag_assets.packed import PACKED_JOB, REASON_TAG, SOURCE_TAG, partitions_of, run_config, run_tags
from rag_core import ids
from rag_core.config import RagConfig, SourceConfig
from rag_core.config_freshness import RunConfig
from rag_core.freshness.dirty import Dirty, dirty_partitions
from rag_core.freshness.looking import look_at
from rag_core.freshness.observation import Observation
from rag_core.freshness.passes import Pass, load_passes, record_passes
from rag_core.packing import Item, Pack, pack
from rag_core.partitions import source_of
from rag_core.tables.store import Store

WEIGHT_TAG: Final = "rag/changed_objects"
"""Changed objects that a run was asked for because of."""

_UNFINISHED: Final = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_ENDED_BADLY: Final = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_RUNS_LOOKED_AT: Final = 20

# A run of so large a share of the largest allowed is heavy: one place among the concurrent runs is kept free of such.
_HEAVY_SHARE: Final = 0.1
_PRIORITY_HEAVY: Final = 0


def build_source_sensors(config: RagConfig) -> list[dg.SensorDefinition]:
    """Make a sensor for each source of a configuration."""
    return [_sensor(config, source) for source in config.sources]


def _sensor(config: RagConfig, source: SourceConfig) -> dg.SensorDefinition:
    store = Store.of(config.store)

    @dg.sensor(
        name=f"source_{source.name}",
        job_name=PACKED_JOB,
        # The daemon looks every five seconds what is due; a tick that is due a moment later would wait five more.
        minimum_interval_seconds=max(1, config.freshness.tick_s - 1),
        default_status=dg.DefaultSensorStatus.RUNNING if config.automation.enabled else dg.DefaultSensorStatus.STOPPED,
        description=f"Looks at source {source.name}, and asks for runs of the partitions that changed.",
    )
    def look(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        now = datetime.now(UTC)
        looked = look_at(store, config, source.name, now=now, cursor=context.cursor)
        runs = _Runs.of(context.instance, source.name)
        _record_crashes(store, runs)
        now = datetime.now(UTC)
        dirty = dirty_partitions(store, config, source.name, now=now)
        # A run of a source that is not there would only fail.
        is_there = looked.observation.problem is None
        packs = due_packs(dirty, runs.in_flight, runs.weights, config.run, now=now) if is_there else []
        by_key = {one.partition_key: one for one in dirty}
        requests = [_request(one, [by_key[key] for key in one.partition_keys], config.run) for one in packs]
        return dg.SensorResult(
            run_requests=requests,
            cursor=looked.cursor,
            skip_reason=None if requests else _said(looked.observation, dirty, runs, now),
        )

    return look


@dataclass(frozen=True)
class _Runs:
    """Runs that are not finished, and the last of a source that ended badly.

    Attributes:
        in_flight: Partitions of the source that a run is about to bring up to date. Those of a backfill that is only
            queued are not: a change does not wait for it.
        weights: Of each unfinished run that a change of any source asked for, its changed objects.
        ended_badly: Runs of the source that failed or were cancelled, newest first.
    """

    in_flight: frozenset[str]
    weights: tuple[int, ...]
    ended_badly: tuple[dg.RunRecord, ...]

    @classmethod
    def of(cls, instance: dg.DagsterInstance, source: str) -> "_Runs":
        """Ask the instance."""
        unfinished = instance.get_runs(dg.RunsFilter(job_name=PACKED_JOB, statuses=_UNFINISHED))
        of_changes = [run for run in unfinished if run.tags.get(REASON_TAG) == "change"]
        started = [run for run in unfinished if run.status is not dg.DagsterRunStatus.QUEUED]
        ended = dg.RunsFilter(job_name=PACKED_JOB, statuses=_ENDED_BADLY, tags={SOURCE_TAG: source})
        keys = (key for run in (*of_changes, *started) for key in partitions_of(run.run_config))
        return cls(
            frozenset(key for key in keys if source_of(key) == source),
            tuple(int(run.tags.get(WEIGHT_TAG, "0")) for run in of_changes),
            tuple(instance.get_run_records(ended, limit=_RUNS_LOOKED_AT)),
        )


def due_packs(
    dirty: Sequence[Dirty], in_flight: frozenset[str], weights: Sequence[int], limits: RunConfig, *, now: datetime
) -> list[Pack]:
    """Pack the partitions that may be tried now into runs, no more than there are places for.

    What finds no place stays dirty and is packed anew at a later tick, together with what came meanwhile: so bursts are
    coalesced, and the lightest go first. One place is kept free of heavy runs, so that fresh changes do not wait for a
    load of thousands.

    Args:
        dirty: Partitions with changes.
        in_flight: Partitions of unfinished runs.
        weights: Changed objects of each unfinished run that changes asked for.
        limits: Sizes of runs, and how many there may be.
        now: What is to be tried later than this waits.
    """
    items = [
        Item(one.partition_key, max(1, one.objects))
        for one in dirty
        if one.is_due(now) and one.partition_key not in in_flight
    ]
    places = limits.concurrent_runs - len(weights)
    heavy_places = max(1, limits.concurrent_runs - 1) - sum(_is_heavy(weight, limits) for weight in weights)
    # Light changes are packed apart from heavy ones, which they would have to wait for.
    light = [item for item in items if not _is_heavy(item.weight, limits)]
    heavy = [item for item in items if _is_heavy(item.weight, limits)]
    sizes = {"max_items": limits.max_partitions_per_run, "max_weight": limits.max_objects_per_run}
    chosen: list[Pack] = []
    for one in [*pack(light, **sizes), *pack(heavy, **sizes)]:
        is_heavy = _is_heavy(one.weight, limits)
        if len(chosen) < places and (not is_heavy or heavy_places > 0):
            chosen.append(one)
            heavy_places -= is_heavy
    return chosen


def _is_heavy(weight: int, limits: RunConfig) -> bool:
    return weight > limits.max_objects_per_run * _HEAVY_SHARE


def _request(one: Pack, dirty: Sequence[Dirty], limits: RunConfig) -> dg.RunRequest:
    """Ask for a run, by a key that says what it is for: asked for again after a crash, it is started once."""
    tags = {WEIGHT_TAG: str(one.weight)}
    if _is_heavy(one.weight, limits):
        tags["dagster/priority"] = str(_PRIORITY_HEAVY)
    work = ids.digest(*(f"{item.partition_key}@{item.newest_look}#{item.attempts}" for item in dirty))
    return dg.RunRequest(run_key=work, run_config=run_config(one.partition_keys), tags=run_tags(one, "change", tags))


def _record_crashes(store: Store, runs: _Runs) -> None:
    """Write down, for runs that ended without a word about their partitions, that these were not brought up to date."""
    if not runs.ended_badly:
        return
    told = set(load_passes(store)["run_id"].to_pylist())
    for record in runs.ended_badly:
        run = record.dagster_run
        if run.run_id in told:
            continue
        message = f"the process of run {run.run_id} ended before it said what became of the partition"
        began = record.create_timestamp.astimezone(UTC)
        passes = [
            Pass(
                key,
                run.tags.get(REASON_TAG, "manual"),
                listed_at=began,
                outcome="crashed",
                failure="transient",
                message=message,
            )
            for key in partitions_of(run.run_config)
        ]
        record_passes(store, passes, run.run_id)


def _said(observation: Observation, dirty: Sequence[Dirty], runs: _Runs, now: datetime) -> str:
    """Say in a sentence why no run was asked for."""
    if observation.problem is not None:
        return observation.problem.message
    waiting = [one for one in dirty if one.partition_key not in runs.in_flight]
    parts = [f"{observation.objects:,} objects"]
    if not observation.complete:
        parts.append("the listing goes on at the next look")
    if observation.unsettled:
        parts.append(f"{observation.unsettled:,} are still being written")
    if runs.in_flight:
        parts.append(f"{len(runs.in_flight):,} partitions in {len(runs.weights):,} runs")
    if later := [one for one in waiting if not one.is_due(now)]:
        parts.append(f"{len(later):,} partitions failed and are tried later")
    if not dirty:
        parts.append("nothing changed")
    return "; ".join(parts)
