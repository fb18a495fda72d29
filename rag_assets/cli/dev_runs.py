"""The runs beside `rag dev`: a line for each that ended, and their end when `rag dev` ends."""

import logging
import signal
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import dagster as dg

from rag_assets.launcher import WarmRunLauncher
from rag_assets.launcher.child import WARM_TAG
from rag_assets.processes import is_here, send_signal

_LOGGER = logging.getLogger(__name__)
_LOOK_EVERY_S = 2.0
_SHOWN_PARTITIONS = 4
_INTERRUPTED_S = 10.0  # a run that is interrupted commits or gives up what it is at
_POLL_S = 0.2

_IN_PROGRESS = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


class RunWatcher:
    """Says what has run since the last look.

    Args:
        instance: Where the runs are.
        ui: Address of the Dagster UI.
        say: Prints a line.
    """

    def __init__(self, instance: dg.DagsterInstance, ui: str, say: Callable[[str], None]) -> None:
        self._instance = instance
        self._ui = ui
        self._say = say
        self._since = datetime.now(UTC)
        self._told: set[str] = set()
        self._look_at = 0.0

    def look(self) -> None:
        """Say what ended, at most every two seconds."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + _LOOK_EVERY_S
        self.tell()

    def tell(self) -> None:
        """Say what ended."""
        try:
            self._tell()
        except Exception:  # whatever keeps one look from the database must not end what is looked at
            _LOGGER.warning("the runs cannot be read now", exc_info=True)

    def _tell(self) -> None:
        filters = dg.RunsFilter(statuses=_ENDED, updated_after=self._since)
        records = self._instance.get_run_records(filters)
        for record in reversed(records):
            if record.dagster_run.run_id not in self._told:
                self._say(self._line(record))
        # Those that were updated at the very time of the newest are found again, and known.
        self._told = {record.dagster_run.run_id for record in records}
        self._since = max([self._since, *(record.update_timestamp for record in records)])

    def _line(self, record: dg.RunRecord) -> str:
        run = record.dagster_run
        took = f" in {record.end_time - record.start_time:.1f} s" if record.start_time and record.end_time else ""
        what = f"{datetime.now(UTC):%H:%M:%S} {run.job_name}{_about(run)}"
        if run.status == dg.DagsterRunStatus.SUCCESS:
            return f"{what}: done{took}"
        return f"{what}: {run.status.value.lower()}{took}, {self._ui}/runs/{run.run_id}"


def _about(run: dg.DagsterRun) -> str:
    keys = run.tags.get("rag/partitions") or run.tags.get("dagster/partition") or ""
    listed = [key.strip() for key in keys.split(",")] if keys else []
    shown = ", ".join(listed[:_SHOWN_PARTITIONS])
    more = f" and {len(listed) - _SHOWN_PARTITIONS} more" if len(listed) > _SHOWN_PARTITIONS else ""
    reason = f" ({run.tags['rag/reason']})" if "rag/reason" in run.tags else ""
    return f" {shown}{more}{reason}" if shown else reason


def end_runs(
    instance: dg.DagsterInstance, hurry: threading.Event, say: Callable[[str], None], *, patience_s: float = 10.0
) -> None:
    """Let the runs that the zygote started finish, then interrupt them, then kill them; each is recorded as canceled.

    Whatever a run is at when it is killed, the next one takes up.

    Args:
        instance: Where the runs are.
        hurry: Set when nobody wants to wait any longer.
        say: Prints a line.
        patience_s: How long they may take to finish.
    """
    left = _warm_runs(instance)
    if not left:
        return
    say(f"{_runs(left)} in progress: left to finish for {patience_s:.0f} s (Ctrl-C: interrupt at once)")
    if not (left := _wait(instance, left, patience_s, hurry)):
        return
    say(f"interrupting {_runs(left)}: {', '.join(run.run_id[:8] for run in left)}; what they did is kept")
    for run in left:
        instance.run_launcher.terminate(run.run_id)
    for run in _wait(instance, left, _INTERRUPTED_S, threading.Event()):
        say(f"killing run {run.run_id[:8]}, which does not end")
        if tag := _process_of(instance, run):
            send_signal(tag, signal.SIGKILL)
        instance.report_run_canceled(run, "Killed when rag dev ended.")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


def _warm_runs(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """Return the runs in progress that have a process here which a zygote forked."""
    runs = instance.get_runs(dg.RunsFilter(statuses=_IN_PROGRESS))
    tags = {run.run_id: _process_of(instance, run) for run in runs}
    newer = [instance.get_run_by_id(run_id) for run_id, tag in tags.items() if tag is not None and is_here(tag)]
    return [run for run in newer if run is not None and WARM_TAG in run.tags and not run.is_finished]


def _process_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str | None:
    launcher = instance.run_launcher
    return launcher.process_of(run) if isinstance(launcher, WarmRunLauncher) else None


def _wait(
    instance: dg.DagsterInstance, runs: list[dg.DagsterRun], patience_s: float, hurry: threading.Event
) -> list[dg.DagsterRun]:
    """Return the runs that have not ended in time."""
    deadline = time.monotonic() + patience_s
    left = runs
    while left and time.monotonic() < deadline and not hurry.wait(_POLL_S):
        found = [instance.get_run_by_id(run.run_id) for run in left]
        left = [run for run in found if run is not None and not run.is_finished]
    return left


def _runs(runs: list[dg.DagsterRun]) -> str:
    return "1 run" if len(runs) == 1 else f"{len(runs)} runs"
