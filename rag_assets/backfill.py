"""Backfills: partitions that somebody asks for, packed into runs, one after the other, giving way to fresh changes.

What a backfill remembers and what became of its partitions is in `rag_core.backfill`; here its runs are made.
"""

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final, Protocol

import dagster as dg

from rag_assets.packed import REASON_TAG
from rag_assets.processes import is_alive, is_here, process_tag
from rag_core.backfill.choice import packs
from rag_core.backfill.pace import Pace, spoken
from rag_core.backfill.results import Result, due, next_due_at, read_results
from rag_core.backfill.state import Backfill, Outcome, save
from rag_core.config import RagConfig
from rag_core.errors import TransientError
from rag_core.packing import Pack
from rag_core.tables.store import Store

_UNFINISHED = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
)
_LOOK_EVERY_S: Final = 1.0
_GIVE_WAY_AT_MOST_S: Final = (
    600.0  # a run that is queued with no daemon to start it must not hold a backfill up for ever
)


@dataclass(frozen=True)
class Ended:
    """A run that ended: how long it took, and of a run of a single stage what became of its partitions."""

    seconds: float
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)


class Executor(Protocol):
    """Where runs are executed.

    Attributes:
        queues: Whether it takes runs that are executed later; else `start` returns when the run has ended.
    """

    queues: bool

    def start(self, run_id: str, partition_keys: Sequence[str]) -> None:
        """Start a run, or queue it."""
        ...

    def ended(self, run_ids: Sequence[str]) -> dict[str, Ended]:
        """Return those of the runs that have ended."""
        ...


class Observer(Protocol):
    """Is told how a backfill goes on."""

    def progress(self, results: Mapping[str, Result], pace: Pace) -> None:
        """Results or speed changed."""
        ...

    def say(self, message: str) -> None:
        """Tell something that a person may wonder about."""
        ...


def claim(store: Store, backfill: Backfill) -> Backfill:
    """Make this process the one that works on a backfill, and save that.

    Raises:
        TransientError: Another process on this machine does.
    """
    other = backfill.process
    if other and other != process_tag() and is_here(other) and is_alive(other):
        raise TransientError(f"backfill {backfill.id} is being worked on by another process ({other}): wait, or end it")
    claimed = replace(backfill, process=process_tag())
    save(store, claimed)
    return claimed


def resumed(store: Store, instance: dg.DagsterInstance, backfill: Backfill) -> Backfill:
    """Begin another session of a backfill: what is not done is tried again; runs that are still queued go on."""
    again = replace(backfill, session=backfill.session + 1, ended=False)
    for run_id in again.running:
        run = instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            again = again.run_ended(run_id, 0.0)
    return claim(store, again)


@dataclass(frozen=True)
class Driver:
    """Makes the runs of a backfill."""

    store: Store
    config: RagConfig
    instance: dg.DagsterInstance
    executor: Executor
    observer: Observer

    def run(self, backfill: Backfill, expected_s: float | None = None) -> tuple[Backfill, dict[str, Result]]:
        """Make runs until each partition is done, held back, or has failed for good.

        Args:
            backfill: Claimed by this process.
            expected_s: Seconds that it should take.

        Returns:
            The backfill as it was saved last, and the result of each partition.
        """
        results = self._results(backfill)
        settled = _settled(results, backfill.weights)
        pace = Pace(sum(backfill.weights.values()), expected_s, done_before=settled)
        pending: list[Pack] = []
        while True:
            self.observer.progress(results, pace)
            pending = pending or packs(self.config, backfill.settings, _weights(backfill, results))
            if pending and (self.executor.queues or not backfill.running):
                backfill = self._start(backfill, pending.pop(0).partition_keys)
                results = self._results(backfill)
            elif backfill.running:
                backfill, seconds = self._collect(backfill)
                results = self._results(backfill)
                # Since the last run that ended, not since the last look: passes are there before their run has ended.
                was, settled = settled, _settled(results, backfill.weights)
                pace = pace.after(settled - was, seconds)
            elif (at := next_due_at(results)) is not None:
                self._wait_until(at, results)
            else:
                break
        backfill = replace(backfill, ended=True, process="")
        save(self.store, backfill)
        return backfill, results

    def _results(self, backfill: Backfill) -> dict[str, Result]:
        return read_results(self.store, backfill, self.config.run)

    def _start(self, backfill: Backfill, partition_keys: Sequence[str]) -> Backfill:
        if not self.executor.queues:
            if backfill.settings.pause_s and any(run.session == backfill.session for run in backfill.runs):
                time.sleep(backfill.settings.pause_s)
            self._give_way()
        run_id = _new_run_id()
        # Written down first: a run that is cut off is known by it.
        backfill = backfill.with_run(run_id, partition_keys)
        save(self.store, backfill)
        self.executor.start(run_id, partition_keys)
        return backfill

    def _collect(self, backfill: Backfill) -> tuple[Backfill, float]:
        """Note the runs that have ended; return also the seconds they took."""
        ended = self.executor.ended(backfill.running)
        for run_id, one in ended.items():
            backfill = backfill.run_ended(run_id, one.seconds, one.outcomes)
        if ended:
            save(self.store, backfill)
        else:
            time.sleep(_LOOK_EVERY_S)
        return backfill, sum(one.seconds for one in ended.values())

    def _give_way(self) -> None:
        """Wait while runs of fresh changes are queued or going on."""
        began = time.monotonic()
        changes = dg.RunsFilter(tags={REASON_TAG: "change"}, statuses=list(_UNFINISHED))
        told = False
        while waiting := self.instance.get_runs_count(changes):
            if time.monotonic() - began > _GIVE_WAY_AT_MOST_S:
                self.observer.say(f"goes on after {_GIVE_WAY_AT_MOST_S:.0f} s, although fresh changes still wait")
                return
            if not told:
                self.observer.say(f"gives way to {waiting:,} runs of fresh changes")
                told = True
            time.sleep(_LOOK_EVERY_S)

    def _wait_until(self, at: datetime, results: Mapping[str, Result]) -> None:
        waiting = sum(one.state == "waiting" for one in results.values())
        seconds = (at - datetime.now(UTC)).total_seconds()
        if seconds > 0:
            self.observer.say(f"{waiting:,} partitions failed transiently and are tried again in {spoken(seconds)}")
            time.sleep(seconds)


def _new_run_id() -> str:
    """Return an id for a run."""
    return str(uuid.uuid4())


def _settled(results: Mapping[str, Result], weights: Mapping[str, int]) -> int:
    """Return the weight of partitions that are not tried any more."""
    return sum(weights[key] for key, one in results.items() if one.state in ("ok", "held", "failed"))


def _weights(backfill: Backfill, results: Mapping[str, Result]) -> dict[str, int]:
    """Return what may be tried now, with its weight."""
    return {one.partition_key: backfill.weights[one.partition_key] for one in due(results, datetime.now(UTC))}
