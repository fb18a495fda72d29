"""Notifications of a bucket, through a real queue, until they are recorded as changes; crashes, disorder and poison."""

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rag_core import ids
from rag_core.config import RagConfig, S3Source
from rag_core.errors import ConfigError, SourceRefusedError
from rag_core.freshness.changes import load_changes
from rag_core.freshness.dirty import dirty_partitions
from rag_core.freshness.looking import look_at
from rag_core.freshness.observation import LookCursor, observe
from rag_core.freshness.told import told
from rag_core.sources.s3 import S3Objects
from rag_core.sources.s3_events import Received, acknowledge, poison_messages, queue_endpoint, receive
from rag_core.tables.store import Store
from tests.integration.s3_helpers import ACCOUNT, REGION, Aws, aws_server, bucket_name, record


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    with aws_server() as server:
        yield server


class Lake:
    """A bucket that tells a queue, a source that reads both, and a store."""

    def __init__(self, aws: Aws, name: str, folder: Path, *, notify: bool = True, **events: Any) -> None:
        self.aws, self.bucket, self.store = aws, name, Store(str(folder / "data"))
        aws.bucket(name)
        self.queue_url = aws.queue(name)
        if notify:
            aws.notify(name, name)
        source = aws.source(name, "docs", self.queue_url)
        assert source.events is not None
        self.source: S3Source = source.model_copy(update={"events": source.events.model_copy(update=events)})
        self.config = RagConfig.model_validate(
            {
                "store": {"root": self.store.root},
                "sources": [self.source.model_dump(exclude_none=True)],
                "freshness": {"settle_s": 0},
            }
        )
        self.cursor = LookCursor()

    def put(self, **objects: str) -> None:
        self.aws.put(self.bucket, {f"docs/{key}.md": text for key, text in objects.items()})

    def delete(self, key: str) -> None:
        self.aws.client("s3").delete_object(Bucket=self.bucket, Key=f"docs/{key}.md")

    def listing(self, *, later: float = 60.0) -> list[tuple[str, str]]:
        """List the source, so much later that what happens next is surely newer, and return what that changed."""
        now = datetime.now(UTC)
        seen = observe(self.store, self.config, "lake", now=now, cursor=self.cursor)
        assert seen.complete
        self.cursor = replace(seen.cursor, looked_at=now - timedelta(seconds=later))
        return kinds(seen.changes.to_pylist())

    def receive(self) -> Received:
        return receive(self.source)

    def tell(self, received: Received) -> list[tuple[str, str]]:
        now = datetime.now(UTC)
        seen = told(self.store, self.config, "lake", received.events, now=now, cursor=self.cursor)
        assert seen.complete
        self.cursor = seen.cursor
        return kinds(seen.changes.to_pylist())

    def acknowledge(self, received: Received) -> int:
        return acknowledge(self.store, self.source, received)

    def changes(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = load_changes(self.store, source="lake").to_pylist()
        return rows


def kinds(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return sorted((row["object_key"], row["kind"]) for row in rows)


@pytest.fixture
def lake(aws: Aws, request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    return Lake(aws, bucket_name(request.node.name), tmp_path)


def test_notifications_say_what_a_listing_would(lake: Lake) -> None:
    lake.put(**{"a b+ä%41": "one", "gone": "two"})
    lake.delete("gone")
    lake.aws.put(lake.bucket, {"elsewhere.md": "x", "docs/.hidden": "x", "docs/folder/": b""})
    received = lake.receive()
    (listed,) = S3Objects.of(lake.source).list()
    assert [event.object_key for event in received.events] == [listed.key, "gone.md"]
    there, gone = received.events
    assert (there.kind, there.fingerprint, there.size) == ("created", listed.fingerprint, listed.size_bytes)
    assert (gone.kind, gone.fingerprint, gone.size) == ("removed", None, None)
    assert datetime.now(UTC) - there.event_time < timedelta(minutes=1)
    assert received.ignored == 4  # of other objects, and S3's test event
    assert (received.poison, received.more) == ((), False)
    assert lake.aws.in_queue(lake.queue_url) == (0, 7)
    assert lake.acknowledge(received) == 7
    assert lake.aws.in_queue(lake.queue_url) == (0, 0)
    assert lake.receive() == Received()


def test_events_become_changes_with_the_time_of_the_event(lake: Lake) -> None:
    lake.put(a="one", b="one")
    assert lake.listing() == [("a.md", "new"), ("b.md", "new")]
    lake.acknowledge(lake.receive())
    before = datetime.now(UTC)
    lake.put(a="two", c="one")
    lake.delete("b")
    received = lake.receive()
    assert lake.tell(received) == [("a.md", "changed"), ("b.md", "deleted"), ("c.md", "new")]
    for row in lake.changes()[2:]:
        event = next(event for event in received.events if event.object_key == row["object_key"])
        assert (row["basis"], row["counted"]) == ("event", True)
        assert row["changed_at"] == event.event_time
        assert before - timedelta(milliseconds=1) <= row["changed_at"] <= row["seen_at"]
    dirty = dirty_partitions(lake.store, lake.config, "lake", now=datetime.now(UTC))
    buckets = lake.config.buckets_of(lake.source)
    of = {
        ids.partition_key("lake", ids.bucket_of(ids.doc_id("lake", key), buckets), buckets) for key in ("a.md", "c.md")
    }
    assert of <= {one.partition_key for one in dirty}
    assert lake.listing() == []  # the snapshot is as a listing would have made it


def test_an_event_from_the_future_changed_when_it_was_seen(lake: Lake) -> None:
    lake.put(a="one")
    lake.listing()
    lake.put(a="two")
    received = lake.receive()
    ahead = [replace(event, event_time=event.event_time + timedelta(hours=1)) for event in received.events]
    assert lake.tell(replace(received, events=tuple(ahead))) == [("a.md", "changed")]
    row = lake.changes()[-1]
    assert (row["changed_at"], row["basis"]) == (row["seen_at"], "bound")
    lake.put(b="one")  # and what follows is not late because of it
    assert lake.tell(lake.receive()) == [("b.md", "new")]


@pytest.mark.parametrize("recorded", [False, True])
def test_a_crash_before_acknowledging_loses_and_doubles_nothing(lake: Lake, recorded: bool) -> None:
    """The process ends after it received, or after it recorded; the messages are shown again, with others between."""
    lake.put(keep="one", change="one", remove="one")
    lake.listing()
    lake.acknowledge(lake.receive())
    lake.put(change="two", add="one")
    lake.delete("remove")
    lost = lake.receive()
    assert len(lost.receipts) == 3
    if recorded:
        lake.tell(lost)
    lake.put(change="three", other="one")  # received before the messages of the crash come again
    meanwhile = lake.receive()
    lake.tell(meanwhile)
    lake.acknowledge(meanwhile)
    lake.aws.show_again(lake.queue_url, lost.receipts)
    again = lake.receive()
    assert [event.object_key for event in again.events] == ["add.md", "change.md", "remove.md"]
    lake.tell(again)
    assert lake.acknowledge(again) == 3
    assert lake.aws.in_queue(lake.queue_url) == (0, 0)
    recorded_kinds = kinds([row for row in lake.changes() if row["counted"]])
    twice = [("change.md", "changed")] if recorded else []  # it did change twice
    expected = [("add.md", "new"), ("change.md", "changed"), ("other.md", "new"), ("remove.md", "deleted")]
    assert recorded_kinds == sorted(expected + twice)
    assert lake.listing() == []
    assert len({row["change_id"] for row in lake.changes()}) == len(lake.changes())


def test_told_twice_is_told_once(lake: Lake) -> None:
    lake.put(a="one")
    lake.listing()
    lake.put(a="two", b="one")
    received = lake.receive()
    assert len(lake.tell(received)) == 2
    lake.aws.send(lake.queue_url, record(lake.bucket, "docs/b.md", size=3, eTag="f97c5d29941bfb1b2fdab0874906ab82"))
    again = lake.receive()
    assert len(again.events) == 1
    assert lake.tell(received) == lake.tell(again) == []
    assert lake.listing() == []


def test_an_event_without_a_listing_before_lists(lake: Lake) -> None:
    lake.put(a="one", b="one")
    received = lake.receive()
    assert lake.tell(replace(received, events=received.events[:1])) == [("a.md", "new"), ("b.md", "new")]
    assert lake.cursor.looked_at is not None


@pytest.mark.parametrize("seed", range(4))
def test_any_order_and_repetition_end_with_what_the_bucket_has(aws: Aws, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    lake = Lake(aws, f"any-order-{seed}", tmp_path)
    lake.put(**dict.fromkeys("abcd", "start"))
    lake.listing()
    held: list[Received] = [lake.receive()]
    for step in range(12):
        key = chance.choice("abcdef")
        lake.delete(key) if chance.random() < 0.3 else lake.put(**{key: f"text {chance.randrange(3)}"})
        if chance.random() < 0.6 or step == 11:
            held.append(lake.receive())
        if chance.random() < 0.4:
            lake.tell(chance.choice(held))
    for received in chance.sample(held, len(held)):
        lake.tell(received)
    lake.put(a="the prefix is not empty")
    lake.tell(lake.receive())
    assert lake.listing() == []


def test_removed_versions_and_removed_marks(lake: Lake) -> None:
    s3 = lake.aws.client("s3")
    s3.put_bucket_versioning(Bucket=lake.bucket, VersioningConfiguration={"Status": "Enabled"})
    lake.put(a="one")
    first = s3.list_object_versions(Bucket=lake.bucket)["Versions"][0]["VersionId"]
    lake.put(a="two")
    lake.listing()
    lake.acknowledge(lake.receive())
    lake.aws.send(lake.queue_url, record(lake.bucket, "docs/a.md", "ObjectRemoved:Delete", versionId=first))
    assert lake.tell(lake.receive()) == []
    lake.delete("a")  # moto says nothing of marks: in the words of S3
    mark = s3.list_object_versions(Bucket=lake.bucket)["DeleteMarkers"][0]["VersionId"]
    marked = record(lake.bucket, "docs/a.md", "ObjectRemoved:DeleteMarkerCreated", versionId=mark)
    marked["Records"][0]["eventTime"] = datetime.now(UTC).isoformat()
    lake.aws.send(lake.queue_url, marked)
    received = lake.receive()
    assert received.events[0].is_certain
    assert lake.tell(received) == [("a.md", "deleted")]
    s3.delete_object(Bucket=lake.bucket, Key="docs/a.md", VersionId=mark)
    lake.acknowledge(lake.receive())
    lake.aws.send(lake.queue_url, record(lake.bucket, "docs/a.md", "ObjectRemoved:Delete", versionId=mark))
    assert lake.tell(lake.receive()) == [("a.md", "new")]
    assert lake.listing() == []


def test_poison_is_set_aside_and_holds_nothing_up(lake: Lake) -> None:
    lake.put(a="one")
    lake.listing()
    lake.acknowledge(lake.receive())
    bad = ["not json", "[]", {"Records": []}, {"hello": "world"}, {"Type": "SubscriptionConfirmation", "TopicArn": "t"}]
    half = record(lake.bucket, "docs/a.md", size=3, eTag="b8a9f715dbb64fd5c56e7783c6820a61")
    half["Records"].append({"eventSource": "aws:s3"})
    lake.aws.send(lake.queue_url, *bad)
    lake.put(b="one")
    lake.aws.send(lake.queue_url, half)
    received = lake.receive()
    assert [event.object_key for event in received.events] == ["a.md", "b.md"]
    assert len(received.poison) == 6
    lake.tell(received)
    assert list(poison_messages(lake.store, "lake")) == []  # not before it is acknowledged
    assert lake.acknowledge(received) == 7
    assert lake.aws.in_queue(lake.queue_url) == (0, 0)
    kept = {message.body: message.reason for message in poison_messages(lake.store, "lake")}
    assert set(kept) == {body if isinstance(body, str) else json.dumps(body) for body in [*bad, half]}
    assert kept["not json"].startswith("it is not JSON")
    assert kept[json.dumps(half)] == "record 2 of 2 has no eventName"
    files = Path(lake.store.root, "work", "events", "lake", "poison").iterdir()
    assert {file.stem for file in files} == {message.message_id for message in received.poison}


def test_a_look_takes_so_many_messages_and_says_that_there_are_more(aws: Aws, tmp_path: Path) -> None:
    lake = Lake(aws, "so-many", tmp_path, notify=False, batch=25)
    lake.aws.send(lake.queue_url, *(record(lake.bucket, f"docs/{number:02}.md") for number in range(42)))
    first = lake.receive()
    assert (len(first.events), len(first.receipts), first.more) == (25, 25, True)
    second = lake.receive()
    assert (len(second.events), second.more) == (17, False)
    assert lake.acknowledge(first) + lake.acknowledge(second) == 42


def test_events_of_another_bucket_are_left_out(lake: Lake, caplog: pytest.LogCaptureFixture) -> None:
    lake.receive()
    lake.aws.send(lake.queue_url, record("others", "docs/a.md"))
    received = lake.receive()
    assert (received.events, received.ignored) == ((), 1)
    assert "1 events are of bucket others; its queue is not its own" in caplog.text


def test_through_a_topic_and_through_eventbridge(aws: Aws, tmp_path: Path) -> None:
    topic = aws.client("sns").create_topic(Name="documents")["TopicArn"]
    lake = Lake(aws, "through-sns", tmp_path, notify=False)
    arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:through-sns"
    aws.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    wanted = {"TopicArn": topic, "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}
    aws.client("s3").put_bucket_notification_configuration(
        Bucket=lake.bucket, NotificationConfiguration={"TopicConfigurations": [wanted]}
    )
    check_one_object(lake)
    lake = Lake(aws, "through-eventbridge", tmp_path, notify=False)
    events = aws.client("events")
    events.put_rule(Name="documents", EventPattern=json.dumps({"source": ["aws.s3"]}))
    arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:through-eventbridge"
    events.put_targets(Rule="documents", Targets=[{"Id": "queue", "Arn": arn}])
    aws.client("s3").put_bucket_notification_configuration(
        Bucket=lake.bucket, NotificationConfiguration={"EventBridgeConfiguration": {}}
    )
    check_one_object(lake)


def check_one_object(lake: Lake) -> None:
    lake.aws.put(lake.bucket, {"docs/": b""})
    lake.listing()
    lake.put(**{"a b": "one"})
    received = lake.receive()
    assert received.poison == ()
    assert lake.tell(received) == [("a b.md", "new")]
    assert lake.listing() == []
    lake.delete("a b")
    assert lake.tell(lake.receive()) == [("a b.md", "deleted")]


def test_a_look_lists_first_then_is_told_then_lists_again(lake: Lake) -> None:
    start = datetime.now(UTC)
    lake.put(a="one")
    looked = look_at(lake.store, lake.config, "lake", now=start, cursor=None)
    assert kinds(looked.observation.changes.to_pylist()) == [("a.md", "new")]
    lake.put(b="one")
    looked = look_at(lake.store, lake.config, "lake", now=datetime.now(UTC), cursor=looked.cursor)
    assert looked.observation.objects == 2  # both were told of
    assert kinds(looked.observation.changes.to_pylist()) == [("b.md", "new")]
    assert lake.aws.in_queue(lake.queue_url) == (0, 0)
    lake.put(c="one")
    lake.aws.client("sqs").purge_queue(QueueUrl=lake.queue_url)  # a notification is lost
    looked = look_at(lake.store, lake.config, "lake", now=datetime.now(UTC), cursor=looked.cursor)
    assert looked.observation.changes.num_rows == 0
    assert lake.source.events is not None
    later = datetime.now(UTC) + timedelta(seconds=lake.source.events.list_every_s)
    looked = look_at(lake.store, lake.config, "lake", now=later, cursor=looked.cursor)
    assert kinds(looked.observation.changes.to_pylist()) == [("c.md", "new")]


def test_what_is_told_was_seen_after_it_was_received(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that listed while the look waited for messages does not cover what they say."""
    lake.put(a="one")
    looked = look_at(lake.store, lake.config, "lake", now=datetime.now(UTC), cursor=None)
    received_at = []

    def slowly(source: S3Source) -> Received:
        lake.put(b="one")
        found = receive(source)
        received_at.append(datetime.now(UTC))
        return found

    monkeypatch.setattr("rag_core.freshness.looking.receive", slowly)
    looked = look_at(lake.store, lake.config, "lake", now=datetime.now(UTC), cursor=looked.cursor)
    assert looked.observation.changes["seen_at"].to_pylist()[0] >= received_at[0]


def test_a_queue_that_is_not_there_is_a_problem_of_the_look(lake: Lake) -> None:
    lake.put(a="one")
    looked = look_at(lake.store, lake.config, "lake", now=datetime.now(UTC), cursor=None)
    lake.aws.client("sqs").delete_queue(QueueUrl=lake.queue_url)
    with pytest.raises(SourceRefusedError, match=r"'lake': queue http.*; correct `events\.queue_url`"):
        lake.receive()
    looked = look_at(lake.store, lake.config, "lake", now=datetime.now(UTC), cursor=looked.cursor)
    assert looked.observation.problem is not None
    assert "queue" in looked.observation.problem.message
    with pytest.raises(ConfigError, match="has no `events`"):
        receive(lake.source.model_copy(update={"events": None}))


@pytest.mark.parametrize(
    ("address", "url", "region"),
    [
        ("https://sqs.eu-west-1.amazonaws.com/1/docs", "https://sqs.eu-west-1.amazonaws.com", "eu-west-1"),
        ("https://sqs.cn-north-1.amazonaws.com.cn/1/docs", "https://sqs.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("http://127.0.0.1:9324/queue/docs", "http://127.0.0.1:9324", REGION),
    ],
)
def test_the_queue_is_where_its_address_says(aws: Aws, address: str, url: str, region: str) -> None:
    endpoint = queue_endpoint(aws.source("docs", queue_url=address))
    assert (endpoint.url, endpoint.region) == (url, region)
