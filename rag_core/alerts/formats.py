"""How a message looks: plain JSON, Slack's incoming webhooks, e-mail."""

import re
from collections.abc import Sequence
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from typing import Any, Final

from rag_core.alerts.model import Message

# Slack refuses a section of more than 3,000 characters; escaping makes a text longer, so less is taken of it.
_SLACK_CHARS: Final = 3_000
_SUBJECT_CHARS: Final = 200


def json_payload(message: Message) -> dict[str, Any]:
    """Return all that is known of a message; times in ISO 8601, UTC."""
    return message.to_dict()


def slack_payload(message: Message) -> dict[str, Any]:
    """Return a payload for incoming webhooks of Slack and what takes them (Mattermost, Rocket.Chat: they show `text`).

    Source: https://docs.slack.dev/messaging/formatting-message-text (`&`, `<` and `>` are escaped, nothing else is),
    https://docs.slack.dev/reference/block-kit/blocks/section-block (limits).
    """
    title, body = _escaped(message.headline, 300), _escaped(message.body, _SLACK_CHARS)
    facts = f"{message.kind} · since {message.since:%Y-%m-%d %H:%M:%S} UTC"
    link = f" · <{_slack_url(message.link)}|open>" if message.link else ""
    blocks: list[dict[str, Any]] = [
        {"type": "section", "text": {"type": "mrkdwn", "text": f"*{title}*", "verbatim": True}},
        {"type": "section", "text": {"type": "mrkdwn", "text": body, "verbatim": True}},
        {"type": "context", "elements": [{"type": "mrkdwn", "text": _escaped(facts, 300) + link, "verbatim": True}]},
    ]
    if not body:  # an empty section is refused
        del blocks[1]
    return {"text": f"{title}\n{body}".strip() + (f"\n<{_slack_url(message.link)}>" if message.link else ""),
            "blocks": blocks}  # fmt: skip


def email_message(message: Message, sender: str, to: Sequence[str]) -> EmailMessage:
    """Return a mail; those about one alert refer to one another, and a repeated delivery has the same Message-ID."""
    domain = parseaddr(sender)[1].rpartition("@")[2] or "localhost"
    mail = EmailMessage()
    mail["Subject"] = message.headline[:_SUBJECT_CHARS]  # the headline is one line: no header can be put in by a title
    mail["From"] = sender
    mail["To"] = ", ".join(to)
    mail["Date"] = format_datetime(message.at)
    mail["Message-ID"] = f"<{message.message_id}@{domain}>"
    mail["References"] = f"<{message.thread_id}@{domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    link = f"\n\n{message.link}" if message.link else ""
    mail.set_content(f"{message.body}{link}\n\n{message.kind}, since {message.since:%Y-%m-%d %H:%M:%S} UTC\n")
    return mail


def _escaped(text: str, limit: int) -> str:
    """Escape a text for Slack; one that is too long is cut before that, so that no escape is cut in two."""
    escaped, kept = _escape(text), len(text)
    while len(escaped) > limit:
        kept -= max(1, (len(escaped) - limit) // 5)  # an escape has five characters at most
        escaped = _escape(text[:kept].rstrip()) + "…"
    return escaped


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _slack_url(url: str) -> str:
    """Escape a link: `|` and `>` would end it."""
    return re.sub(r"[<>|\s]", lambda found: f"%{ord(found.group()):02X}", url).replace("&", "&amp;")
