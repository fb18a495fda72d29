"""What became of a backfill's partitions so far, and which of them are to be tried, and when."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from rag_core.backfill.state import Backfill, BackfillRun, Outcome
from rag_core.config_freshness import RunConfig
from rag_core.freshness.passes import load_passes
from rag_core.tables.store import Store

State = Literal["ok", "held", "failed", "waiting", "running"]

_CRASHED = Outcome("crashed", failure="transient", message="the run ended before it said what became of the partition")


@dataclass(frozen=True)
class Result:
    """A partition of a backfill.

    Attributes:
        partition_key: Which.
        state: `ok`; `held` or `failed`: not tried again in this session; `waiting`: to be tried at `due_at`;
            `running`: in a run that has not ended.
        attempts: Tries in this session.
        due_at: None: at once.
        stage: Where the last try stopped.
        failure: permanent or transient, of the last try.
        message: What it said.
    """

    partition_key: str
    state: State
    attempts: int = 0
    due_at: datetime | None = None
    stage: str = ""
    failure: str = ""
    message: str = ""

    def is_due(self, now: datetime) -> bool:
        """Whether it may be tried now."""
        return self.state == "waiting" and (self.due_at is None or self.due_at <= now)


def read_results(store: Store, backfill: Backfill, config: RunConfig) -> dict[str, Result]:
    """Return the result of each partition of a backfill, in the order of the keys."""
    return results_of(backfill, load_passes(store), config)


def results_of(backfill: Backfill, passes: pa.Table, config: RunConfig) -> dict[str, Result]:
    """Do the same with a table of passes; pure.

    What is done counts from every session. What failed counts in the session of now only: who resumes a backfill wants
    it tried again.
    """
    outcomes = _outcomes(backfill, passes)
    tries: dict[str, list[tuple[BackfillRun, Outcome | None]]] = {key: [] for key in backfill.weights}
    done: set[str] = set()
    for run in backfill.runs:
        for key in run.partition_keys:
            outcome = outcomes.get((run.run_id, key))
            if outcome is not None and outcome.outcome == "ok":
                done.add(key)
            if run.session == backfill.session or not run.ended:
                tries[key].append((run, outcome))
    return {
        key: Result(key, "ok", len(listed)) if key in done else _result(key, listed, config)
        for key, listed in sorted(tries.items())
    }


def _outcomes(backfill: Backfill, passes: pa.Table) -> dict[tuple[str, str], Outcome]:
    """Return what is known of each run and partition: from passes, else from the run's own notes."""
    ids = pa.array([run.run_id for run in backfill.runs], pa.string())
    columns = ["run_id", "partition_key", "outcome", "stage", "failure", "message"]
    rows: list[dict[str, Any]] = passes.select(columns).filter(pc.is_in(passes["run_id"], ids)).to_pylist()
    noted = {(run.run_id, key): one for run in backfill.runs for key, one in run.outcomes.items()}
    said = {
        (row["run_id"], row["partition_key"]): Outcome(row["outcome"], row["stage"], row["failure"], row["message"])
        for row in rows
    }
    return {**noted, **said}


def _result(key: str, tries: list[tuple[BackfillRun, Outcome | None]], config: RunConfig) -> Result:
    if not tries:
        return Result(key, "waiting")
    run, outcome = tries[-1]
    if outcome is None and not run.ended:
        return Result(key, "running", len(tries))
    last = outcome or _CRASHED
    state: State = "waiting"
    due_at = None
    if last.outcome == "held":
        state = "held"
    elif last.failure == "permanent" or len(tries) >= config.max_attempts:
        state = "failed"
    else:
        wait_s = min(config.retry_after_s * 2.0 ** (len(tries) - 1), config.retry_at_most_s)
        due_at = run.started_at + timedelta(seconds=run.seconds + wait_s)
    return Result(key, state, len(tries), due_at, stage=last.stage, failure=last.failure, message=last.message)


def due(results: Mapping[str, Result], now: datetime) -> list[Result]:
    """Return the partitions that may be tried now."""
    return [one for one in results.values() if one.is_due(now)]


def next_due_at(results: Mapping[str, Result]) -> datetime | None:
    """Return when the first of those that wait may be tried; None if none waits for a time."""
    return min((one.due_at for one in results.values() if one.state == "waiting" and one.due_at), default=None)


def counted(results: Mapping[str, Result]) -> dict[State, int]:
    """Count the partitions by state."""
    counts = Counter(one.state for one in results.values())
    states: tuple[State, ...] = ("ok", "held", "failed", "waiting", "running")
    return {state: counts[state] for state in states}
