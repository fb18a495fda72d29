"""What messages about a bucket say: S3's own format, the same inside an SNS envelope, and EventBridge's. Pure.

Sources: https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html (keys are
URL-encoded, sequencers order the events of one key), https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html
(keys are not encoded), https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal
from urllib.parse import unquote_plus

import orjson

from rag_core.sources.base import SourceObject
from rag_core.sources.s3 import s3_fingerprint

EventKind = Literal["created", "removed"]

_REMOVALS: Final = ("ObjectRemoved", "LifecycleExpiration")
_EXPECTED: Final = "an S3 event notification, such a notification in an SNS envelope, or an S3 event of EventBridge"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to an object.

    Attributes:
        object_key: Key inside the source; of a `Message`, the key of the bucket.
        kind: Whether the object was there afterwards.
        fingerprint: As a listing gives it; None if removed, or if the message does not say.
        size: In bytes; None as for `fingerprint`.
        event_time: UTC.
        sequencer: Orders the events of one key; may be empty.
        is_certain: False if the message does not say whether, or as what, the object is there now: one of its versions
            was removed, or its ETag is not named.
    """

    object_key: str
    kind: EventKind
    fingerprint: str | None
    size: int | None
    event_time: datetime
    sequencer: str
    is_certain: bool = True


@dataclass(frozen=True)
class Message:
    """What one message says.

    Attributes:
        events: By bucket, each with the key that the object has in the bucket, in the message's order.
        ignored: Records of other kinds of events, and test events.
        problems: What of it cannot be read, as sentences; empty if all of it could be.
    """

    events: tuple[tuple[str, Event], ...] = ()
    ignored: int = 0
    problems: tuple[str, ...] = ()


class _UnreadableError(ValueError):
    """A record does not have what it must have."""


def parse_message(body: str, *, sent_at: datetime) -> Message:
    """Read the body of a message; what cannot be read is told, not raised.

    Args:
        body: As the queue gives it.
        sent_at: When the message was sent: stands in for a time of the event that cannot be read.
    """
    try:
        content = _json_object(body)
        if content.get("Type") in ("Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation"):
            content = _inside_envelope(content)
    except _UnreadableError as error:
        return Message(problems=(str(error),))
    if content.get("Event") == "s3:TestEvent":
        return Message(ignored=1)
    if content.get("source") == "aws.s3" and "detail-type" in content:
        return _collected([content], _of_eventbridge, sent_at)
    records = content.get("Records")
    if not isinstance(records, list):
        return Message(problems=(f"the format is not known; expected {_EXPECTED}",))
    if not records:
        return Message(problems=("it has no records",))
    return _collected(records, _of_record, sent_at)


def newest_events(events: Iterable[Event]) -> list[Event]:
    """Return the newest event of each key, sorted by key, however often and in whatever order they are given.

    Events of a key that all have sequencers are ordered by them, others by time.
    """
    by_key: dict[str, list[Event]] = {}
    for event in events:
        by_key.setdefault(event.object_key, []).append(event)
    return [_newest(by_key[key]) for key in sorted(by_key)]


def as_found(event: Event, found: SourceObject | None) -> Event:
    """Replace what an event says by what a look at its object found since; None: it is not there."""
    if found is None:
        return replace(event, kind="removed", fingerprint=None, size=None, is_certain=True)
    # Another event may have made it what it is now; that one came when the object was written.
    since = event.event_time if found.modified_at is None else max(event.event_time, found.modified_at)
    return replace(
        event, kind="created", fingerprint=found.fingerprint, size=found.size_bytes, event_time=since, is_certain=True
    )


def order_of(sequencer: str, width: int) -> str:
    """Make a sequencer comparable with others of its key: of unlike lengths, the shorter is padded on the right."""
    return sequencer.lower().ljust(width, "0")


def _newest(events: list[Event]) -> Event:
    width = max(len(event.sequencer) for event in events)
    by_sequencer = all(event.sequencer for event in events)

    def order(event: Event) -> tuple[Any, ...]:
        sequencer = order_of(event.sequencer, width)
        first, second = (sequencer, event.event_time) if by_sequencer else (event.event_time, sequencer)
        return first, second, event.kind, event.fingerprint or "", event.is_certain, event.sequencer

    return max(events, key=order)


def _json_object(body: str) -> dict[str, Any]:
    try:
        content = orjson.loads(body)
    except ValueError as error:
        raise _UnreadableError(f"it is not JSON ({error}); expected {_EXPECTED}") from error
    if not isinstance(content, dict):
        raise _UnreadableError(f"it is a JSON {type(content).__name__}, not an object; expected {_EXPECTED}")
    return content


def _inside_envelope(envelope: Mapping[str, Any]) -> dict[str, Any]:
    if envelope["Type"] != "Notification":
        raise _UnreadableError(
            f"it is a {envelope['Type']} of SNS, topic {envelope.get('TopicArn')}; confirm it by its SubscribeURL"
        )
    if not isinstance(envelope.get("Message"), str):
        raise _UnreadableError("the SNS envelope has no Message")
    return _json_object(envelope["Message"])


def _collected(
    records: list[Any], read: Callable[[Mapping[str, Any], datetime], tuple[str, Event] | None], sent_at: datetime
) -> Message:
    events, problems, ignored = [], [], 0
    for number, record in enumerate(records, start=1):
        try:
            if not isinstance(record, dict):
                raise _UnreadableError("is not an object")
            event = read(record, sent_at)
        except _UnreadableError as error:
            problems.append(f"record {number} of {len(records)} {error}")
            continue
        if event is None:
            ignored += 1
        else:
            events.append(event)
    return Message(tuple(events), ignored, tuple(problems))


def _of_record(record: Mapping[str, Any], sent_at: datetime) -> tuple[str, Event] | None:
    # MinIO and Ceph call themselves minio:s3 and ceph:s3, and write the name of the event with `s3:` before it.
    if not str(record.get("eventSource", "")).endswith(":s3"):
        raise _UnreadableError(f"has the eventSource {record.get('eventSource')!r}; expected 'aws:s3'")
    family, _, detail = _text(record, "eventName").removeprefix("s3:").partition(":")
    if family != "ObjectCreated" and family not in _REMOVALS:
        return None
    entity = _mapping(record, "s3")
    item = _mapping(entity, "object")
    key = unquote_plus(_text(item, "key"))
    event = _event(
        key,
        "created" if family == "ObjectCreated" else "removed",
        etag=item.get("eTag"),
        size=item.get("size"),
        event_time=_time(record.get("eventTime"), sent_at),
        sequencer=item.get("sequencer"),
        of_version=bool(item.get("versionId")) and detail != "DeleteMarkerCreated",
    )
    return _text(_mapping(entity, "bucket"), "name"), event


def _of_eventbridge(content: Mapping[str, Any], sent_at: datetime) -> tuple[str, Event] | None:
    kinds: dict[str, EventKind] = {"Object Created": "created", "Object Deleted": "removed"}
    kind = kinds.get(str(content["detail-type"]))
    if kind is None:
        return None
    detail = _mapping(content, "detail")
    item = _mapping(detail, "object")
    event = _event(
        _text(item, "key"),
        kind,
        etag=item.get("etag"),
        size=item.get("size"),
        event_time=_time(content.get("time"), sent_at),
        sequencer=item.get("sequencer"),
        of_version=bool(item.get("version-id")) and detail.get("deletion-type") != "Delete Marker Created",
    )
    return _text(_mapping(detail, "bucket"), "name"), event


def _event(
    key: str, kind: EventKind, *, etag: Any, size: Any, event_time: datetime, sequencer: Any, of_version: bool
) -> Event:
    order = sequencer if isinstance(sequencer, str) else ""
    if kind == "removed":
        # Without one of its versions, or without the marker of its deletion, the object may well be there.
        return Event(key, kind, None, None, event_time, order, is_certain=not of_version)
    if isinstance(etag, str) and etag and isinstance(size, int):
        return Event(key, kind, s3_fingerprint(etag, size), size, event_time, order)
    return Event(key, kind, None, None, event_time, order, is_certain=False)


def _mapping(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = content.get(name)
    if not isinstance(value, dict):
        raise _UnreadableError(f"has no {name}")
    return value


def _text(content: Mapping[str, Any], name: str) -> str:
    value = content.get(name)
    if not isinstance(value, str) or not value:
        raise _UnreadableError(f"has no {name}")
    return value


def _time(value: Any, otherwise: datetime) -> datetime:
    try:
        time = datetime.fromisoformat(value)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return otherwise
