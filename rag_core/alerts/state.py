"""What is kept of alerts between two evaluations: one small file in the store, replaced as a whole."""

import logging
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from pydantic import TypeAdapter, ValidationError

from rag_core.alerts.model import Alert, Finding, Message, Severity
from rag_core.reports.pages import read_text, write_text
from rag_core.tables.store import Store

STATE_PATH: Final = "work/alerts.json"


@dataclass(frozen=True)
class OpenAlert:
    """An alert that has begun and not ended.

    Attributes:
        finding: As last seen.
        since: When it was first seen.
        told_at: When it was last told.
        worst_told: The worst severity it was told with: one that swings between two is told once to be critical.
        missing: Evaluations in a row that did not find it.
        missing_since: The first of them; None if the last evaluation found it.
    """

    finding: Finding
    since: datetime
    told_at: datetime
    worst_told: Severity
    missing: int = 0
    missing_since: datetime | None = None


@dataclass(frozen=True)
class Attempts:
    """Failed deliveries in a row, of a message or of a whole channel."""

    failures: int
    retry_at: datetime
    reason: str


@dataclass
class Pending:
    """A message of the outbox.

    Attributes:
        message: What is told.
        settled: Channel -> what became of it there: `delivered`, or `dropped` because it got too old.
        attempts: Channel -> failed tries, where the receiver refused this message.
    """

    message: Message
    settled: dict[str, str] = field(default_factory=dict)
    attempts: dict[str, Attempts] = field(default_factory=dict)


@dataclass
class BookState:
    """Everything that must survive a restart.

    Attributes:
        open: Alert key -> alert that has not ended.
        outbox: Messages that some channel has not been given yet, oldest first.
        unwritten: Alerts that are not in the table `alerts` yet.
        channels: Channel -> failed tries, where the channel as a whole did not work.
    """

    open: dict[str, OpenAlert] = field(default_factory=dict)
    outbox: list[Pending] = field(default_factory=list)
    unwritten: list[Alert] = field(default_factory=list)
    channels: dict[str, Attempts] = field(default_factory=dict)


_JSON: Final = TypeAdapter(BookState)


def load_state(store: Store) -> BookState:
    """Read the state; a new one if there is none.

    A file that cannot be read is copied to `work/alerts.json.unreadable`, and its loss is logged: alerts that go on are
    told as new then, which is better than to tell nothing any more.
    """
    text = read_text(store, STATE_PATH)
    if text is None:
        return BookState()
    try:
        return _JSON.validate_json(text)
    except ValidationError:
        kept = f"{STATE_PATH}.unreadable"
        write_text(store, kept, text)
        logging.getLogger(__name__).exception(
            "%s cannot be read and is begun anew; what was in it is in %s", store.uri(STATE_PATH), store.uri(kept)
        )
        return BookState()


def save_state(store: Store, state: BookState) -> None:
    """Replace the state in one step: a crash leaves the one before, or this one."""
    write_text(store, STATE_PATH, _JSON.dump_json(state).decode())
