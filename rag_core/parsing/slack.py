"""One day of a Slack channel as Markdown: authors, times, threads beneath their first message, mentions by name."""

import html
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rag_core.parsing.markdown import heading
from rag_core.parsing.model import Extract, UnreadableError, clean_line, clean_text

_ENTITY: Final = re.compile(r"<([^<>\n]+)>")
_QUIET: Final = (
    "channel_join channel_leave group_join group_leave channel_name channel_archive channel_unarchive pinned_item "
    "bot_add bot_remove reminder_add tombstone"
)
_SPECIAL: Final = {"!here": "@here", "!channel": "@channel", "!everyone": "@everyone"}


def _resolve(text: str, users: Mapping[str, str]) -> str:
    """Turn Slack's angle-bracket forms into what a reader sees: names, channels, link texts."""

    def shown(match: re.Match[str]) -> str:
        target, _, label = match[1].partition("|")
        if target.startswith("@"):
            return f"@{users.get(target[1:]) or label or target[1:]}"
        if target.startswith("#"):
            return f"#{label or target[1:]}"
        if target.startswith("!"):
            return _SPECIAL.get(target, f"@{label.lstrip('@')}" if label else target)
        return f"{label} ({target})" if label and label not in target else target

    return html.unescape(_ENTITY.sub(shown, text))


def _author(message: Mapping[str, Any], users: Mapping[str, str]) -> str:
    profile = message.get("user_profile") or message.get("bot_profile") or {}
    own = profile.get("real_name") or profile.get("display_name") or profile.get("name")
    known = users.get(str(message.get("user") or ""))
    return clean_line(known or message.get("username") or own or message.get("user")) or "unknown"


def _moment(ts: Any) -> datetime | None:
    try:
        return datetime.fromtimestamp(float(ts), UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def _attachments(message: Mapping[str, Any], users: Mapping[str, str]) -> list[str]:
    lines = []
    for item in message.get("attachments") or ():
        if isinstance(item, Mapping):
            lines += [_resolve(str(item[key]), users) for key in ("pretext", "title", "text") if item.get(key)]
    for item in message.get("files") or ():
        if isinstance(item, Mapping) and (item.get("title") or item.get("name")):
            lines.append(f"[file: {item.get('title') or item.get('name')}]")
    return lines


def _entry(message: Mapping[str, Any], users: Mapping[str, str], day: str) -> str:
    body = "\n".join([_resolve(str(message.get("text") or ""), users), *_attachments(message, users)])
    body = clean_text(body)
    moment = _moment(message.get("ts"))
    time = "" if moment is None else f"{moment:%H:%M}" if f"{moment:%Y-%m-%d}" == day else f"{moment:%Y-%m-%d %H:%M}"
    return f"**{_author(message, users)}** {time}: {body}".replace(" :", ":") if body else ""


def _threads(messages: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Group replies under their first message, in order of time; replies whose root is of another day stay together."""
    threads: dict[str, list[Mapping[str, Any]]] = {}
    for number, message in enumerate(messages):
        key = str(message.get("thread_ts") or message.get("ts") or f"#{number}")
        threads.setdefault(key, []).append(message)
    return list(threads.values())


def slack_extract(data: bytes) -> Extract:
    """Write a channel's day; messages that only say who joined or left are left out.

    Args:
        data: JSON `{"channel": {...}, "users": {id: name}, "date": "2023-04-13", "messages": [...]}`.

    Raises:
        UnreadableError: Not of that form.
    """
    try:
        day = json.loads(data)
        channel, users, date = day["channel"], day["users"], str(day["date"])
        name = str(channel.get("name") or channel.get("id") or "channel")
        messages = [m for m in day["messages"] if isinstance(m, Mapping)]
        users = {str(key): str(value) for key, value in users.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UnreadableError(f"The day of the export is damaged ({error!r}). Export the channel again.") from error
    quiet = frozenset(_QUIET.split())
    messages = sorted((m for m in messages if m.get("subtype") not in quiet), key=lambda m: str(m.get("ts") or ""))
    title = f"#{name}, {date}"
    blocks = []
    for thread in _threads(messages):
        root, *replies = (_entry(message, users, date) for message in thread)
        indented = [f"  - {reply}".replace("\n", "\n    ") for reply in replies if reply]
        if root or indented:
            blocks.append("\n".join([f"- {root or '(message without text)'}".replace("\n", "\n  "), *indented]))
    moments = [
        moment for m in messages for moment in [_moment((m.get("edited") or {}).get("ts") or m.get("ts"))] if moment
    ]
    if not blocks:
        return Extract(title=title, empty_reason="Nobody wrote anything in the channel on this day.")
    text = "\n\n".join([*heading(1, title), *blocks])
    return Extract(text=text, title=title, modified_at=max(moments, default=None))
