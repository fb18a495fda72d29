"""Where a run's time went, read from what Dagster recorded: the span of each step and the figures it published."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg

STAGES = ("documents", "chunks", "embeddings", "index_partitions", "published_index")


@dataclass
class StageTimes:
    """One stage over all Dagster runs of an invocation.

    Attributes:
        seconds: Wall-clock time of its steps.
        steps: Seconds by step inside the stage, as the stage measured them (metadata `seconds_*`).
        figures: Further numbers that it published (`run_*`, `worker_*`, bytes written).
        spans: Start and end of each Dagster step, seconds since the epoch.
    """

    seconds: float = 0.0
    steps: dict[str, float] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    spans: list[tuple[float, float]] = field(default_factory=list)

    @property
    def rest(self) -> float:
        """Seconds that no step of the stage accounts for: reading tables, commit, digests, Dagster itself."""
        return self.seconds - sum(self.steps.values())


def run_ids(home: Path) -> set[str]:
    """Return the ids of all runs that the instance knows; none if there is no instance yet."""
    if not (home / "dagster.yaml").exists():
        return set()
    with dg.DagsterInstance.from_config(str(home)) as instance:
        return {run.run_id for run in instance.get_runs()}


def stage_times(home: Path, *, before: Collection[str] = ()) -> dict[str, StageTimes]:
    """Read the stages of the runs that were added to an instance.

    Args:
        home: DAGSTER_HOME of the store.
        before: Ids of runs that are not meant, as `run_ids` returned them.

    Returns:
        Stage -> times, in the order of the pipeline; stages that did not run are left out.
    """
    found: dict[str, StageTimes] = {}
    with dg.DagsterInstance.from_config(str(home)) as instance:
        for run in reversed(instance.get_runs()):
            if run.run_id in before:
                continue
            for stats in instance.get_run_step_stats(run.run_id):
                if stats.start_time is not None and stats.end_time is not None:
                    times = found.setdefault(stats.step_key, StageTimes())
                    times.seconds += stats.end_time - stats.start_time
                    times.spans.append((stats.start_time, stats.end_time))
            _add_metadata(instance, run.run_id, found)
    return {stage: found[stage] for stage in (*STAGES, *sorted(found.keys() - set(STAGES))) if stage in found}


def _add_metadata(instance: dg.DagsterInstance, run_id: str, found: dict[str, StageTimes]) -> None:
    seen: set[str] = set()
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
        event = entry.dagster_event
        # The run's figures are the same on the event of every partition.
        if event is None or event.step_key is None or event.step_key in seen:
            continue
        seen.add(event.step_key)
        times = found.setdefault(event.step_key, StageTimes())
        for name, value in event.step_materialization_data.materialization.metadata.items():
            if name.startswith("seconds_"):
                step = name.removeprefix("seconds_")
                times.steps[step] = times.steps.get(step, 0.0) + float(value.value)  # type: ignore[arg-type]
            elif name.startswith(("run_", "worker_")) or name in {"bytes_written", "rows_written"}:
                times.figures[name] = value.value
    _count_worker(found)


def _count_worker(found: dict[str, StageTimes]) -> None:
    """Give the embedding worker's own time a step: the stage measures only what it does beside it."""
    times = found.get("embeddings")
    if times is not None and "worker_job_seconds" in times.figures:
        times.steps["worker"] = times.steps.get("worker", 0.0) + float(times.figures.pop("worker_job_seconds"))
