"""Keeps groups of metrics up to date in the background, so that a scrape costs nothing and waits for nothing."""

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rag_core.monitoring.group import Group

_LOG: Final = logging.getLogger(__name__)
_SHARE: Final = 4  # a look that takes long is followed by a pause of so many times as long: the store has other readers
_STOP_S: Final = 5.0

_UP: Final = ("rag_exporter_group_up", "1 if the last look at a group's tables succeeded and is not too old.")
_SEEN: Final = (
    "rag_exporter_group_last_success_timestamp_seconds",
    "When a group was last brought up to date; 0 before the first time.",
)
_TOOK: Final = ("rag_exporter_group_duration_seconds", "How long its last look took.")
_ERRORS: Final = ("rag_exporter_group_errors", "Looks that failed, since the exporter started.")


@dataclass
class _State:
    """What is known of a group. Replaced values are read by scrapes in other threads; each is one assignment."""

    snapshot: tuple[Metric, ...] = ()
    succeeded_at: float = 0.0
    is_failing: bool = True
    took_s: float = 0.0
    errors: int = 0


class Exporter(Collector):
    """Gives Prometheus what each group said last. A group that fails or hangs leaves the others as they are.

    Args:
        groups: Each is brought up to date by a thread of its own.
        refresh_s: Seconds between two looks.
        stale_after_s: Without a successful look for so long a group's metrics are left out: a figure that is not known
            any more must not look as if it were.
    """

    def __init__(self, groups: Sequence[Group], *, refresh_s: float, stale_after_s: float) -> None:
        self._states = {group.name: _State() for group in groups}
        self._groups = tuple(groups)
        self._refresh_s = refresh_s
        self._stale_after_s = stale_after_s
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Look at once, and then again and again, in the background."""
        for group in self._groups:
            thread = threading.Thread(target=self._run, args=(group,), name=f"metrics-{group.name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """End the looks; one that hangs is not waited for."""
        self._stopping.set()
        deadline = time.monotonic() + _STOP_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def refresh(self) -> None:
        """Look at every group once, one after the other."""
        for group in self._groups:
            self._look(group)

    @property
    def failing(self) -> tuple[str, ...]:
        """Names of the groups whose last look failed, or that were not looked at yet."""
        return tuple(name for name, state in self._states.items() if state.is_failing)

    def collect(self) -> Iterator[Metric]:
        """Give what is known, and how old it is. Called for each scrape; reads nothing."""
        now = time.time()
        fresh = {name: now - state.succeeded_at <= self._stale_after_s for name, state in self._states.items()}
        for name, state in self._states.items():
            if fresh[name]:
                yield from state.snapshot
        states = self._states.items()
        yield _gauge(_UP, ((name, fresh[name] and not state.is_failing) for name, state in states))
        yield _gauge(_SEEN, ((name, state.succeeded_at) for name, state in states))
        yield _gauge(_TOOK, ((name, state.took_s) for name, state in states))
        errors = CounterMetricFamily(*_ERRORS, labels=["group"])
        for name, state in states:
            errors.add_metric([name], state.errors)
        yield errors

    def _run(self, group: Group) -> None:
        while True:
            self._look(group)
            pause_s = min(_SHARE * self._states[group.name].took_s, self._stale_after_s / 2)
            if self._stopping.wait(max(self._refresh_s, pause_s)):
                return

    def _look(self, group: Group) -> None:
        state, began = self._states[group.name], time.monotonic()
        try:
            group.update(datetime.now(UTC))
            snapshot = tuple(group.registry.collect())
        except Exception:  # noqa: BLE001 - whatever is wrong with one group, the others are needed
            if not state.is_failing or not state.errors:  # told once, and again after it worked
                _LOG.exception("the metrics of the group %s cannot be brought up to date", group.name)
            state.errors += 1
            state.is_failing = True
        else:
            state.snapshot, state.succeeded_at, state.is_failing = snapshot, time.time(), False
        state.took_s = time.monotonic() - began


def _gauge(described: tuple[str, str], values: Iterable[tuple[str, float]]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(*described, labels=["group"])
    for group, value in values:
        family.add_metric([group], float(value))
    return family
