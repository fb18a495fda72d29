"""What a group of metrics is: some metrics that are read from one place, and are right or wrong together."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge

SECONDS: Final = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 14_400.0)
"""Buckets of durations of runs."""


class Group(Protocol):
    """Metrics that are brought up to date together.

    Attributes:
        name: Label value by which the exporter tells of the group.
        registry: Holds the group's metrics and no others.
    """

    name: str
    registry: CollectorRegistry

    def update(self, now: datetime) -> None:
        """Bring the metrics up to date; what it raises marks the group as down and changes nothing elsewhere."""


def replace_all(gauge: Gauge, values: Mapping[tuple[str, ...], float]) -> None:
    """Set a gauge to these values by labels, in the order of its labels; those of before are gone."""
    gauge.clear()
    for labels, value in values.items():
        gauge.labels(*labels).set(value)


def begin_at_zero(counter: Counter, labels: Sequence[tuple[str, ...]]) -> None:
    """Show a counter for labels that nothing was counted for yet: Prometheus sees no increase from nothing to 1."""
    for one in labels:
        counter.labels(*one)
