"""Messages about a bucket: what they say, in each format, and what becomes of those that cannot be read."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_core.sources.s3_messages import Event, Message, newest_events, order_of, parse_message

SENT = datetime(2026, 3, 1, 12, 0, 5, tzinfo=UTC)
AT = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
ETAG = "d41d8cd98f00b204e9800998ecf8427e"


def parse(content: object) -> Message:
    return parse_message(content if isinstance(content, str) else json.dumps(content), sent_at=SENT)


def record(key: str, name: str = "ObjectCreated:Put", **item: Any) -> dict[str, Any]:
    return {
        "eventSource": "aws:s3",
        "eventTime": "2026-03-01T12:00:00.250Z",
        "eventName": name,
        "s3": {"bucket": {"name": "docs"}, "object": {"key": key, **item}},
    }


def created(key: str, **item: Any) -> dict[str, Any]:
    return record(key, **{"size": 7, "eTag": ETAG, "sequencer": "0A1B", **item})


def eventbridge(kind: str, item: Mapping[str, Any], **detail: Any) -> dict[str, Any]:
    return {
        "version": "0",
        "id": "17793124-05d4-b198-2fde-7ededc63b103",
        "detail-type": kind,
        "source": "aws.s3",
        "time": "2026-03-01T12:00:00Z",
        "detail": {"version": "0", "bucket": {"name": "docs"}, "object": item, **detail},
    }


def deleted(item: Mapping[str, Any], how: str) -> dict[str, Any]:
    return eventbridge("Object Deleted", item, **{"deletion-type": how})


def in_sns(content: object) -> dict[str, Any]:
    return {"Type": "Notification", "TopicArn": "arn:aws:sns:::documents", "Message": json.dumps(content)}


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_keys_are_decoded(key: str) -> None:
    ((bucket, event),) = parse({"Records": [created(quote_plus(key))]}).events
    assert bucket == "docs"
    assert event == Event(key, "created", f"7-{ETAG}", 7, AT, "0A1B")
    ((_, event),) = parse(eventbridge("Object Created", {"key": key, "size": 7, "etag": ETAG})).events
    assert event == Event(key, "created", f"7-{ETAG}", 7, AT.replace(microsecond=0), "")


def test_every_wrapping_says_the_same() -> None:
    for content in (
        {"Records": [created("a+b")]},
        eventbridge("Object Created", {"key": "a b", "size": 7, "etag": ETAG}),
    ):
        assert parse(in_sns(content)) == parse(content)
        assert parse(content).events[0][1].object_key == "a b"
    minio = created("a") | {"eventSource": "minio:s3", "eventName": "s3:ObjectCreated:Put"}
    assert parse({"EventName": "s3:ObjectCreated:Put", "Records": [minio]}) == parse({"Records": [created("a")]})


@pytest.mark.parametrize(
    ("content", "is_certain"),
    [
        ({"Records": [record("a", "ObjectRemoved:Delete")]}, True),
        ({"Records": [record("a", "ObjectRemoved:DeleteMarkerCreated", versionId="v1")]}, True),
        ({"Records": [record("a", "ObjectRemoved:Delete", versionId="v1")]}, False),
        ({"Records": [record("a", "LifecycleExpiration:Delete")]}, True),
        (deleted({"key": "a"}, "Permanently Deleted"), True),
        (deleted({"key": "a", "version-id": "v"}, "Permanently Deleted"), False),
        (deleted({"key": "a", "version-id": "v"}, "Delete Marker Created"), True),
    ],
)  # fmt: skip
def test_a_removed_version_leaves_open_whether_the_object_is_there(content: object, is_certain: bool) -> None:
    ((_, event),) = parse(content).events
    assert (event.kind, event.is_certain, event.fingerprint) == ("removed", is_certain, None)


def test_created_without_an_etag_is_uncertain() -> None:
    for missing in ("eTag", "size"):
        ((_, event),) = parse({"Records": [created("a", **{missing: None})]}).events
        assert (event.kind, event.is_certain, event.fingerprint) == ("created", False, None)


@pytest.mark.parametrize(
    "content",
    [
        {"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2026-03-01T12:00:00.000Z", "Bucket": "docs"},
        in_sns({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "docs"}),
        {"Records": [record("a", "ObjectTagging:Put")]},
        {"Records": [record("a", "ObjectRestore:Completed")]},
        eventbridge("Object Tags Added", {"key": "a"}),
    ],
)
def test_what_does_not_matter_is_ignored(content: object) -> None:
    assert parse(content) == Message(ignored=1)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("not json", "it is not JSON"),
        ("", "it is not JSON"),
        ("[1]", "it is a JSON list, not an object"),
        ("\ud800", "it is not JSON"),
        ({}, "the format is not known; expected an S3 event notification"),
        ({"Records": {}}, "the format is not known"),
        ({"Records": []}, "it has no records"),
        ({"Records": [7]}, "record 1 of 1 is not an object"),
        ({"Records": [created("a") | {"eventSource": "aws:ses"}]}, "record 1 of 1 has the eventSource 'aws:ses'"),
        ({"Records": [created("")]}, "record 1 of 1 has no key"),
        ({"Records": [created("a") | {"s3": []}]}, "record 1 of 1 has no s3"),
        ({"Type": "Notification"}, "the SNS envelope has no Message"),
        (in_sns("text"), "it is a JSON str, not an object"),
        ({"Type": "SubscriptionConfirmation", "TopicArn": "t"}, "it is a SubscriptionConfirmation of SNS, topic t"),
        (eventbridge("Object Created", {}), "record 1 of 1 has no key"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_has_a_reason(content: object, reason: str) -> None:
    message = parse(content)
    assert not message.events
    (problem,) = message.problems
    assert problem.startswith(reason)


def test_a_bad_record_does_not_hold_up_the_others() -> None:
    message = parse({"Records": [created("a"), {}, created("b"), record("c", "ObjectAcl:Put")]})
    assert [event.object_key for _, event in message.events] == ["a", "b"]
    assert message.ignored == 1
    assert len(message.problems) == 1


@pytest.mark.parametrize("time", [None, "yesterday", 5, "2026-99-01"])
def test_without_a_time_that_can_be_read_the_message_has_one(time: object) -> None:
    ((_, event),) = parse({"Records": [created("a") | {"eventTime": time}]}).events
    assert event.event_time == SENT


_NAMES = "Records s3 object bucket key eventName eventSource Type Message source detail-type detail sequencer eventTime"
_VALUES = st.sampled_from(
    ["aws:s3", "aws.s3", "ObjectCreated:Put", "a", "Notification", "Object Created", None, True, 5]
)
_JSON = st.recursive(
    _VALUES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_NAMES.split()), inner, min_size=1, max_size=6)
    ),
    max_leaves=12,
)


@given(_JSON)
def test_no_message_raises(content: object) -> None:
    message = parse(content)
    assert message.events or message.ignored or message.problems


# Ordering

_TIMES = st.integers(0, 5).map(lambda seconds: AT + timedelta(seconds=seconds))


def _event(key: str, version: str | None, time: datetime, sequencer: str) -> Event:
    gone = version is None
    return Event(key, "removed" if gone else "created", version, None if gone else 1, time, sequencer)


_EVENTS = st.lists(
    st.builds(
        _event,
        st.sampled_from("ab"),
        st.sampled_from([None, "1-x", "1-y"]),
        _TIMES,
        st.sampled_from(["", "0a", "0A1", "0b", "0a10"]),
    ),
    max_size=8,
)


@given(_EVENTS, st.randoms(use_true_random=False), st.data())
def test_order_and_repetition_of_events_do_not_count(events: list[Event], random: Any, data: st.DataObject) -> None:
    again = events + [data.draw(st.sampled_from(events)) for _ in range(3 if events else 0)]
    random.shuffle(again)
    newest = newest_events(events)
    assert newest_events(again) == newest
    assert [event.object_key for event in newest] == sorted({event.object_key for event in events})


@given(st.lists(st.sampled_from([None, "1-x", "1-y"]), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_what_happened_last_counts(history: list[str | None], random: Any) -> None:
    """Sequencers rise, and are written with and without zeros at their end; clocks of servers may differ."""
    events = []
    for number, version in enumerate(history):
        sequencer = f"{0x55AED600 + number:010X}" + "0" * random.randrange(3)
        events.append(_event("a", version, AT + timedelta(seconds=random.randrange(5)), sequencer))
    random.shuffle(events)
    assert newest_events(events)[0].fingerprint == history[-1]


def test_sequencers_of_unlike_length() -> None:
    assert order_of("0055aed6", 10) < order_of("0055AED6DC", 10)
    assert order_of("0055AED6", 10) == order_of("0055AED600", 10)
    assert order_of("01", 4) > order_of("0055", 4)  # padded on the right, not on the left


def test_without_sequencers_time_decides() -> None:
    old, new = _event("a", "1-x", AT, ""), _event("a", None, AT + timedelta(seconds=1), "")
    assert newest_events([new, old]) == [new]
