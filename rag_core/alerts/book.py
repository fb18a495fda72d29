"""The book of alerts: what began, goes on and ended, from findings that are taken again and again.

An alert is told when it begins, again after `repeat_s` while it goes on, at once when it becomes critical, and when it
ended. It has ended when two evaluations in a row, a minute apart at least, did not find it: what flickers is one alert.

The state and the messages that must go out are written together, in one step, before anything is delivered. A crash at
any time loses no message; one that was delivered but not yet marked as such goes out twice, with the same id.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from rag_core.alerts.delivery import Outcome, deliver_outbox
from rag_core.alerts.history import append_alerts
from rag_core.alerts.model import Alert, Channel, Finding, Message, State, messages_of
from rag_core.alerts.state import BookState, OpenAlert, Pending, load_state, save_state
from rag_core.tables.locks import exclusive
from rag_core.tables.store import Store

ENDED_AFTER_S: Final = 60.0
"""So long must an alert not have been found, in two evaluations at least, before it counts as ended."""

_ENDED_AFTER_EVALUATIONS: Final = 2
_LOCK_WAIT_S: Final = 5.0


class AlertBook:
    """Open alerts and undelivered messages of a store.

    One process at a time works with a book: `locked` keeps others out, those of other machines too.
    """

    def __init__(self, store: Store, *, repeat_s: float) -> None:
        """Read the book.

        Args:
            store: Holds it.
            repeat_s: What goes on is told again after this long.
        """
        self._store = store
        self._repeat = timedelta(seconds=repeat_s)
        self._state = load_state(store)

    @classmethod
    @contextmanager
    def locked(cls, store: Store, *, repeat_s: float) -> "Iterator[AlertBook]":
        """Hold the book alone for as long as the block runs.

        Raises:
            TransientError: Another process holds it.
        """
        with exclusive(store, "alerts", timeout_s=_LOCK_WAIT_S):
            yield cls(store, repeat_s=repeat_s)

    @property
    def open(self) -> Mapping[str, OpenAlert]:
        """Alerts that began and have not ended, by key."""
        return dict(self._state.open)

    @property
    def outbox(self) -> Sequence[Message]:
        """Messages that some channel has not been given yet, oldest first."""
        return [pending.message for pending in self._state.outbox]

    def update(self, findings: Collection[Finding], now: datetime, *, unknown: Collection[str] = ()) -> list[Alert]:
        """Take what is wrong now, and note what must be told of it.

        Args:
            findings: All that is wrong; of two with the same key the first counts.
            now: Time of the evaluation, UTC.
            unknown: Kinds that could not be evaluated: their alerts neither end nor count as missing.

        Returns:
            What began, is told again, or ended; already safe in the outbox.
        """
        current: dict[str, Finding] = {}
        for finding in findings:
            current.setdefault(finding.key, finding)
        told = [alert for finding in current.values() if (alert := self._found(finding, now))]
        gone = [one for key, one in self._state.open.items() if key not in current and one.finding.kind not in unknown]
        told += [alert for one in gone if (alert := self._missed(one, now))]
        self._state.outbox += [Pending(message) for message in messages_of(told)]
        self._state.unwritten += told
        save_state(self._store, self._state)
        return told

    def write_history(self) -> None:
        """Append what was told to the table `alerts`. What fails is written the next time."""
        if self._state.unwritten:
            append_alerts(self._store, self._state.unwritten)
            self._state.unwritten = []
            save_state(self._store, self._state)

    def deliver(self, channels: Sequence[Channel], now: datetime, *, budget_s: float = 20.0) -> list[Outcome]:
        """Deliver what is due; each channel on its own, in the order in which things happened.

        Args:
            channels: Those that are configured.
            now: Time of the evaluation, UTC.
            budget_s: No channel begins another delivery after this long.

        Returns:
            What each channel did; nothing is raised for a delivery that failed.
        """
        return deliver_outbox(self._state, channels, now, budget_s=budget_s, save=self._save)

    def _save(self, state: BookState) -> None:
        save_state(self._store, state)

    def _found(self, finding: Finding, now: datetime) -> Alert | None:
        known = self._state.open.get(finding.key)
        if known is None:
            self._state.open[finding.key] = OpenAlert(finding, now, now, finding.severity)
            return _alert(finding, "firing", at=now, since=now)
        worse = finding.severity == "critical" and known.worst_told != "critical"
        again = worse or now - known.told_at >= self._repeat
        told_at, worst = (now if again else known.told_at), ("critical" if worse else known.worst_told)
        self._state.open[finding.key] = OpenAlert(finding, known.since, told_at, worst)
        return _alert(finding, "repeated", at=now, since=known.since) if again else None

    def _missed(self, known: OpenAlert, now: datetime) -> Alert | None:
        since = known.missing_since or now
        missed = replace(known, missing=known.missing + 1, missing_since=since)
        if missed.missing < _ENDED_AFTER_EVALUATIONS or (now - since).total_seconds() < ENDED_AFTER_S:
            self._state.open[known.finding.key] = missed
            return None
        del self._state.open[known.finding.key]
        return _alert(known.finding, "resolved", at=now, since=known.since)


def _alert(finding: Finding, state: State, *, at: datetime, since: datetime) -> Alert:
    values: dict[str, Any] = {name: getattr(finding, name) for name in ("kind", "severity", "title", "link", "group")}
    body = f"It lasted from {since:%Y-%m-%d %H:%M:%S} to {at:%Y-%m-%d %H:%M:%S} UTC." if state == "resolved" else ""
    return Alert(alert_key=finding.key, state=state, at=at, since=since, body=body or finding.body, **values)
