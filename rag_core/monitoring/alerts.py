"""Alerts of the platform's own that are open, and messages about them that could not be delivered."""

from collections import Counter as Counts
from datetime import datetime
from typing import Final

from prometheus_client import CollectorRegistry, Gauge
from pydantic import TypeAdapter

from rag_core.alerts.model import KINDS
from rag_core.alerts.state import STATE_PATH, BookState
from rag_core.monitoring.group import replace_all
from rag_core.reports.pages import read_text
from rag_core.tables.store import Store

SEVERITIES: Final = ("warning", "critical")
_STATE: Final = TypeAdapter(BookState)


def read_book(store: Store) -> BookState:
    """Read what the sensor `alerts` keeps; nothing if it never ran.

    Raises:
        ValidationError: The file cannot be read. `load_state` would begin a new one, which is for the sensor to do.
    """
    text = read_text(store, STATE_PATH)
    return BookState() if text is None else _STATE.validate_json(text)


class AlertMetrics:
    """`docs/operations.md` says of each kind of alert what it means."""

    name = "alerts"

    def __init__(self, store: Store) -> None:
        """Name the store; nothing is read yet."""
        self._store = store
        self.registry = r = CollectorRegistry()
        self._active = Gauge(
            "rag_alerts_active", "Alerts that have begun and not ended, as `rag alerts` lists them.",
            ["kind", "severity"], registry=r,
        )  # fmt: skip
        self._waiting = Gauge("rag_alert_messages_waiting", "Messages that some channel was not given yet.", registry=r)
        self._failures = Gauge(
            "rag_alert_channel_failures", "Failed deliveries in a row of a channel that does not work.", ["channel"],
            registry=r,
        )  # fmt: skip

    def update(self, now: datetime) -> None:
        """Read what the sensor `alerts` keeps."""
        book = read_book(self._store)
        counts = Counts((one.finding.kind, one.finding.severity) for one in book.open.values())
        replace_all(
            self._active, {(kind, severity): counts[kind, severity] for kind in KINDS for severity in SEVERITIES}
        )
        self._waiting.set(len(book.outbox))
        replace_all(self._failures, {(name,): tries.failures for name, tries in book.channels.items()})
