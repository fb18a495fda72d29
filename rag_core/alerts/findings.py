"""How findings are written: what was seen, what to do, where to read more, and a link."""

from datetime import datetime
from typing import Final

from rag_core.alerts.model import Finding, Severity

_MESSAGE_CHARS: Final = 1_500


def make_finding(
    kind: str, scope: str, severity: Severity, title: str, seen: str, todo: str, link: str, *, group: str = ""
) -> Finding:
    """Make a finding; its key is `kind/scope`, and its body ends with what to do and the entry of the manual."""
    body = f"{seen}\n\nWhat to do: {todo}\nMore: docs/operations.md#{kind}"
    return Finding(f"{kind}/{scope}", kind, severity, title, body, link, group)


def cut(text: str) -> str:
    """Shorten a message that may be long."""
    text = text.strip()
    return text if len(text) <= _MESSAGE_CHARS else f"{text[:_MESSAGE_CHARS]}…"


def utc(time: datetime) -> str:
    """Write a time for people."""
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"


def run_link(ui_url: str, run_id: str) -> str:
    """Return the page of a run."""
    return f"{ui_url.rstrip('/')}/runs/{run_id}"


def asset_link(ui_url: str, asset: str) -> str:
    """Return the page of an asset."""
    return f"{ui_url.rstrip('/')}/assets/{asset}"


def automation_link(ui_url: str) -> str:
    """Return the page of sensors and schedules."""
    return f"{ui_url.rstrip('/')}/automation"
