"""A Slack workspace export, folder or ZIP: every channel's day is an object.

Its bytes are a JSON object made here, of the day's file and of what the export says of the channel and its authors.
The files of the export themselves are reached through `rag_core.sources.slack_export`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from rag_core import ids
from rag_core.errors import ObjectGoneError, SourceError
from rag_core.sources.base import SourceObject
from rag_core.sources.globs import KeyFilter
from rag_core.sources.slack_export import Export, open_export

_DAY_FILE = re.compile(r"(?P<key>[^/]+/(?P<date>\d{4}-\d{2}-\d{2}))\.json")
_USERS_FILE = "users.json"
_CHANNEL_FILES = {
    "channels.json": "channel",
    "groups.json": "private_channel",
    "mpims.json": "group_message",
    "dms.json": "direct_message",
}
_ABOUT_FILES = (_USERS_FILE, *_CHANNEL_FILES)
_MENTION = re.compile(r"<@([A-Z0-9]+)")


@dataclass(frozen=True)
class SlackDays:
    """The days of the channels of an export; the key of an object is `CHANNEL/YYYY-MM-DD`.

    A day counts as changed when its file changes, or what the export says of users or channels. `modified_at` is the
    start of the day, UTC.

    Attributes:
        name: Name of the source.
        root: Absolute path of the folder or ZIP file.
        keys: Which days are read.
        max_bytes: Largest file that is read from the export.
    """

    name: str
    root: Path
    keys: KeyFilter
    max_bytes: int

    def list(self) -> Iterator[SourceObject]:
        """List the days, in no particular order.

        Raises:
            SourceError: There is no export at the root, or it is damaged.
        """
        parts = {part.name: part for part in open_export(self.name, self.root).parts()}
        about = [parts[name].fingerprint for name in _ABOUT_FILES if name in parts]
        if not about:
            raise SourceError(f"source {self.name!r}: {self.root} is no Slack export: it has no channels.json")
        for part in parts.values():
            found = _DAY_FILE.fullmatch(part.name)
            date = _start_of(found["date"]) if found else None
            if found and date and self.keys.admits(found["key"]):
                yield SourceObject(
                    source=self.name,
                    key=found["key"],
                    uri=part.uri,
                    fingerprint=ids.digest(part.fingerprint, *about),
                    size_bytes=part.size_bytes,
                    modified_at=date,
                    format="slack_day",
                )

    def read(self, item: SourceObject) -> bytes:
        """Return UTF-8 JSON: `channel` (id, name, kind, topic, purpose), `users`, `date`, `messages` as in the export.

        `users` maps the ids that the messages name (authors, repliers, mentions) to display names. A day's file that is
        not a list of messages is returned as it is, for the parser to reject.

        Raises:
            ObjectGoneError: The export or the day is gone.
            SourceError: The export is damaged, or a file of it is larger than `max_bytes`.
        """
        folder, _, date = item.key.rpartition("/")
        export = open_export(self.name, self.root)
        day = export.read(f"{item.key}.json", self.max_bytes)
        if day is None:
            raise ObjectGoneError(f"source {self.name!r}: {item.key} is no longer in {self.root}")
        messages = _records(day)
        if messages is None:
            return day
        about = _about(export, export.state(_ABOUT_FILES), self.max_bytes)
        channel = about.channels.get(folder, {"id": folder, "name": folder, "kind": "channel"})
        content = {"channel": channel, "users": _names(messages, about.users), "date": date, "messages": messages}
        return orjson.dumps(content)


@dataclass(frozen=True)
class _About:
    """Display name of each user by id, and what is known of each channel by the folder of its days."""

    users: Mapping[str, str]
    channels: Mapping[str, Mapping[str, Any]]


@lru_cache(maxsize=4)  # else a large workspace's users are parsed again for each of its days
def _about(export: Export, state: tuple[object, ...], max_bytes: int) -> _About:
    """Read users and channels; `state` is part of the cache's key and changes with them."""
    users = {str(user.get("id")): _display_name(user) for user in _listed(export, _USERS_FILE, max_bytes)}
    channels: dict[str, Mapping[str, Any]] = {}
    for file, kind in _CHANNEL_FILES.items():
        for record in _listed(export, file, max_bytes):
            # the days of direct messages are in a folder named by id
            folder = str(record.get("name") or record.get("id"))
            texts = {key: _value(record.get(key)) for key in ("topic", "purpose")}
            channels[folder] = {"id": record.get("id"), "name": folder, "kind": kind, **texts}
    return _About(users, channels)


def _listed(export: Export, name: str, max_bytes: int) -> list[dict[str, Any]]:
    data = export.read(name, max_bytes)
    records = [] if data is None else _records(data)
    if records is None:
        raise SourceError(f"source {export.source!r}: {name} in {export.root} is not a JSON list of objects")
    return records


def _records(data: bytes) -> list[dict[str, Any]] | None:
    """Parse a JSON list of objects; None if it is something else."""
    try:
        records = orjson.loads(data.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError:
        return None
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        return None
    return records


def _names(messages: Iterable[Mapping[str, Any]], users: Mapping[str, str]) -> dict[str, str]:
    """Return the names of all whom the messages name; people that users.json lacks come with their own messages."""
    names: dict[str, str] = {}
    for message in messages:
        user, bot = message.get("user"), message.get("bot_id")
        if isinstance(user, str) and names.get(user, user) == user:
            names[user] = users.get(user) or _display_name({"id": user, **_mapping(message, "user_profile")})
        if isinstance(bot, str):
            names.setdefault(bot, str(_mapping(message, "bot_profile").get("name") or message.get("username") or bot))
        replies = message.get("reply_users")
        others = [*_MENTION.findall(str(message.get("text", ""))), *(replies if isinstance(replies, list) else ())]
        for other in others:
            if other in users:
                names.setdefault(other, users[other])
    return names


def _display_name(user: Mapping[str, Any]) -> str:
    profile = _mapping(user, "profile")
    choices = (profile.get("display_name"), profile.get("real_name"), user.get("display_name"))
    return str(next(filter(None, (*choices, user.get("real_name"), user.get("name"), user.get("id"))), ""))


def _mapping(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def _value(text: Any) -> str:
    """Return a topic or purpose, which Slack wraps with its author."""
    return str(text.get("value") or "") if isinstance(text, dict) else ""


def _start_of(date: str) -> datetime | None:
    try:
        return datetime.fromisoformat(date).replace(tzinfo=UTC)
    except ValueError:
        return None
