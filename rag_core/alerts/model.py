"""What alerts are made of: findings of one evaluation, alerts that begin and end, messages that tell of them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final, Literal, Protocol

from rag_core import ids
from rag_core.errors import TransientError

Severity = Literal["warning", "critical"]
State = Literal["firing", "repeated", "resolved"]

KINDS: Final = (
    "freshness_burn",
    "freshness_hard_limit",
    "failed_run",
    "blocked_publication",
    "stuck_partition",
    "reject_jump",
    "index_dirt",
    "listing_problem",
    "poison_event",
    "missed_look",
    "rule_failed",
)
"""Every kind of alert; `docs/operations.md` has an entry for each under *Alerts*."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong now.

    Attributes:
        key: What is wrong with what, such as stuck_partition/handbook__03; the same while it goes on.
        kind: One of `KINDS`.
        severity: How soon somebody must look.
        title: One line.
        body: What was seen, and what to do.
        link: Page that shows it; may be empty.
        group: Findings of one group that begin together are told in one message when they are many; empty: never.
    """

    key: str
    kind: str
    severity: Severity
    title: str
    body: str
    link: str = ""
    group: str = ""

    def __post_init__(self) -> None:
        """Replace what UTF-8 cannot write: a file name that is no text must not keep its alert from being told."""
        for name in ("key", "title", "body", "link", "group"):
            object.__setattr__(self, name, getattr(self, name).encode("utf-8", "replace").decode())


@dataclass(frozen=True)
class Alert:
    """A finding that began, goes on or ended: one row of the table `alerts`, whose columns `rag_core.schemas` explains.

    `group` is the finding's; the table does not keep it.
    """

    alert_key: str
    kind: str
    severity: Severity
    state: State
    at: datetime
    since: datetime
    title: str
    body: str
    link: str
    group: str = ""

    @property
    def alert_id(self) -> str:
        """Digest of the key and when it began: the same from beginning to end."""
        return ids.digest("alert", self.alert_key, self.since.isoformat())

    def to_row(self) -> dict[str, Any]:
        """Return the row of the table `alerts`."""
        row = {"alert_id": self.alert_id, **asdict(self)}
        del row["group"]
        return row


@dataclass(frozen=True)
class Message:
    """What a channel is given: an alert, or several of one group that changed state together.

    Attributes:
        message_id: The same however often it is delivered, so that receivers can tell a repetition.
        keys: Keys of the alerts.
        thread_id: The same for all messages about one alert.
        at: When the state was found.
        since: When it began, of several the earliest.
    """

    message_id: str
    keys: tuple[str, ...]
    thread_id: str
    kind: str
    severity: Severity
    state: State
    at: datetime
    since: datetime
    title: str
    body: str
    link: str

    @property
    def headline(self) -> str:
        """The title with what it is about it: `CRITICAL: ...`, `Still: ...`, `Resolved: ...`."""
        words = {"firing": self.severity.upper(), "repeated": f"Still {self.severity}", "resolved": "Resolved"}
        return f"{words[self.state]}: {' '.join(self.title.split())}"

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, times in ISO 8601."""
        times = {"at": self.at.isoformat(), "since": self.since.isoformat()}
        return {**asdict(self), "keys": list(self.keys), **times, "headline": self.headline}


class DeliveryError(TransientError):
    """A message was not delivered; the text says where to and why, and holds no secret.

    Attributes:
        message_only: The receiver refused this message and may take others; else the channel as a whole is waited for.
        retry_after_s: The receiver asks to be left alone so long; 0 if it said nothing.
    """

    def __init__(self, reason: str, *, message_only: bool = False, retry_after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.message_only = message_only
        self.retry_after_s = retry_after_s


class Channel(Protocol):
    """A way to somebody: log, webhook, e-mail."""

    @property
    def name(self) -> str:
        """Name by which the outbox remembers what it delivered."""

    def deliver(self, message: Message) -> str:
        """Deliver a message, and say to whom.

        Raises:
            DeliveryError: It was not delivered, as far as is known.
        """


_GROUPED_FROM: Final = 6  # so many alerts of a group are one message
_NAMED: Final = 20


def messages_of(alerts: Sequence[Alert]) -> list[Message]:
    """Make a message of each alert; of more than five of one group that change state together, one message."""
    by_group: dict[tuple[str, str], list[Alert]] = {}
    for alert in alerts:
        by_group.setdefault((alert.group or alert.alert_key, alert.state), []).append(alert)
    return [
        message
        for members in by_group.values()
        for message in ([_grouped(members)] if len(members) >= _GROUPED_FROM else map(_single, members))
    ]


def _single(alert: Alert) -> Message:
    return Message(
        message_id=ids.digest("message", alert.alert_id, alert.state, alert.at.isoformat()),
        keys=(alert.alert_key,),
        thread_id=alert.alert_id,
        kind=alert.kind,
        severity=alert.severity,
        state=alert.state,
        at=alert.at,
        since=alert.since,
        title=alert.title,
        body=alert.body,
        link=alert.link,
    )


def _grouped(alerts: Sequence[Alert]) -> Message:
    """Make one message: the first alert's body stands for all, since one kind has one thing to do."""
    first = alerts[0]
    subject = first.group.partition("/")[2]
    titles = [f"- {alert.title}" for alert in alerts[:_NAMED]]
    if len(alerts) > _NAMED:
        titles.append(f"- and {len(alerts) - _NAMED} more; all of them: rag alerts")
    return Message(
        message_id=ids.digest("message", *(alert.alert_id for alert in alerts), first.state, first.at.isoformat()),
        keys=tuple(alert.alert_key for alert in alerts),
        thread_id=ids.digest("group", first.group, min(alert.since for alert in alerts).isoformat()),
        kind=first.kind,
        severity="critical" if any(alert.severity == "critical" for alert in alerts) else "warning",
        state=first.state,
        at=first.at,
        since=min(alert.since for alert in alerts),
        title=f"{len(alerts)} x {first.kind.replace('_', ' ')} of {subject}",
        body="\n".join([*titles, "", "The first of them:", first.body]),
        link=first.link,
    )
