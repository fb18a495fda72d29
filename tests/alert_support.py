"""Findings and channels for tests of alerts."""

from datetime import UTC, datetime
from typing import Any

from rag_core.alerts.model import DeliveryError, Finding, Message

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def finding(key: str = "failed_run/build_index", **values: Any) -> Finding:
    """Return a finding; what is not given is made up."""
    kind = key.partition("/")[0]
    made = {"severity": "warning", "title": f"{key} is wrong", "body": f"What to do.\nMore: docs/operations.md#{kind}"}
    return Finding(key=key, kind=kind, **{**made, **values})


class Recorder:
    """A channel that keeps what it is given, and fails while it is told to."""

    def __init__(self, name: str = "recorder") -> None:
        self.name = name
        self.failure: Exception | None = None
        self.tried = 0
        self.messages: list[Message] = []

    def deliver(self, message: Message) -> str:
        """Keep the message."""
        self.tried += 1
        if self.failure is not None:
            raise self.failure
        self.messages.append(message)
        return "kept"

    @property
    def told(self) -> list[tuple[str, str]]:
        """(key, state) of everything that was delivered, in order."""
        return [(key, message.state) for message in self.messages for key in message.keys]


DOWN = DeliveryError("recorder is down")
REFUSED = DeliveryError("recorder does not like it", message_only=True)
