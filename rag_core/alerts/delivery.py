"""Delivers the outbox: each channel on its own, failed deliveries again with growing pauses, nothing for ever."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from rag_core.alerts.model import Channel, DeliveryError
from rag_core.alerts.state import Attempts, BookState, Pending

_LOG = logging.getLogger(__name__)

DROPPED_AFTER: Final = timedelta(hours=24)
"""A message that a channel could not be given for so long is dropped there, and logged."""

_RETRY_AFTER_S: Final = 10.0
_RETRY_AT_MOST_S: Final = 900.0

Save = Callable[[BookState], None]


@dataclass(frozen=True)
class Outcome:
    """What a channel did with its part of the outbox.

    Attributes:
        channel: Its name.
        delivered: Messages it was given.
        dropped: Messages that got too old for it.
        waiting: Messages that it has still to be given.
        error: Why the last try failed; empty if none did.
    """

    channel: str
    delivered: int
    dropped: int
    waiting: int
    error: str = ""


def deliver_outbox(
    state: BookState, channels: Sequence[Channel], now: datetime, *, budget_s: float, save: Save
) -> list[Outcome]:
    """Deliver what is due; the state is saved after each delivery.

    Channels work side by side, so that one that hangs until its time limit does not make the others wait. A channel
    that fails as a whole is left alone for a while: 10 s, then 20 s, up to 15 minutes. A message that is refused waits
    by itself, and what is told later of the same alert waits behind it: nobody hears of an end before the beginning.
    """
    if not channels:
        return []
    work = _Work(state, now, time.monotonic() + budget_s, save)
    with ThreadPoolExecutor(len(channels), thread_name_prefix="alerts") as pool:
        outcomes = list(pool.map(work.through, channels))
    names = {channel.name for channel in channels}
    before = len(state.outbox)
    state.outbox = [pending for pending in state.outbox if not names <= pending.settled.keys()]
    if len(state.outbox) != before:
        save(state)
    return outcomes


class _Work:
    """One round of deliveries; the lock guards the state, which the channels' threads share."""

    def __init__(self, state: BookState, now: datetime, deadline: float, save: Save) -> None:
        self._state = state
        self._now = now
        self._deadline = deadline
        self._save = save
        self._lock = threading.Lock()

    def through(self, channel: Channel) -> Outcome:
        """Give a channel what is due."""
        delivered, error = 0, ""
        dropped = self._drop(channel.name)
        for pending in self._due(channel.name):
            if time.monotonic() > self._deadline:
                break
            failure = self._try(channel, pending)
            if failure is None:
                delivered += 1
                continue
            error = str(failure)
            if not failure.message_only:
                break
        waiting = sum(channel.name not in pending.settled for pending in self._state.outbox)
        return Outcome(channel.name, delivered, dropped, waiting, error)

    def _due(self, name: str) -> Iterator[Pending]:
        whole = self._state.channels.get(name)
        if whole is not None and self._now < whole.retry_at:
            return
        held: set[str] = set()
        for pending in list(self._state.outbox):
            if name in pending.settled:
                continue
            refused = pending.attempts.get(name)
            if held.isdisjoint(pending.message.keys) and (refused is None or self._now >= refused.retry_at):
                yield pending
            if name not in pending.settled:
                held.update(pending.message.keys)

    def _drop(self, name: str) -> int:
        old = [
            pending
            for pending in self._state.outbox
            if name not in pending.settled and self._now - pending.message.at > DROPPED_AFTER
        ]
        for pending in old:
            last = pending.attempts.get(name) or self._state.channels.get(name)
            reason = last.reason if last else "it was never tried"
            _LOG.error("alert not delivered by %s within a day, dropped: %s (%s)",
                       name, pending.message.headline, reason)  # fmt: skip
            self._settle(pending, name, "dropped")
        return len(old)

    def _try(self, channel: Channel, pending: Pending) -> DeliveryError | None:
        try:
            said = channel.deliver(pending.message)
        except DeliveryError as error:
            failure = error
        except Exception as error:  # noqa: BLE001  # a fault of a channel must not keep the others silent
            failure = DeliveryError(f"{channel.name}: {type(error).__name__}", message_only=True)
        else:
            _LOG.info("alert delivered by %s: %s", channel.name, said)
            self._settle(pending, channel.name, "delivered")
            return None
        self._failed(channel.name, pending, failure)
        return failure

    def _settle(self, pending: Pending, name: str, how: str) -> None:
        with self._lock:
            pending.settled[name] = how
            pending.attempts.pop(name, None)
            if how == "delivered":
                self._state.channels.pop(name, None)
            self._save(self._state)

    def _failed(self, name: str, pending: Pending, failure: DeliveryError) -> None:
        with self._lock:
            kept = pending.attempts if failure.message_only else self._state.channels
            failures = kept[name].failures + 1 if name in kept else 1
            wait_s = min(_RETRY_AFTER_S * 2 ** min(failures - 1, 10), _RETRY_AT_MOST_S)
            retry_at = self._now + timedelta(seconds=max(wait_s, failure.retry_after_s))
            kept[name] = Attempts(failures, retry_at, str(failure))
            self._save(self._state)
        _LOG.warning("alert not delivered, tried again from %s UTC: %s", f"{retry_at:%H:%M:%S}", failure)
