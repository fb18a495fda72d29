"""Takes the messages of a queue that say what changed in a bucket, in two steps, so that a crash loses none of them.

`receive` says what happened; the caller records it; `acknowledge` then removes the messages from the queue. What was
not acknowledged comes again, and saying a thing twice does no harm. A message that cannot be read is set aside in the
store with its reason, and never holds up the others.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from rag_core.aws import Endpoint, client
from rag_core.config import S3Source
from rag_core.config_freshness import SqsEvents
from rag_core.errors import ConfigError
from rag_core.reports.pages import names_in, read_text, safe_name, write_text
from rag_core.sources.aws import errors_about
from rag_core.sources.s3 import S3Objects
from rag_core.sources.s3_messages import Event, newest_events, parse_message
from rag_core.tables.store import Store

_log = logging.getLogger(__name__)

_AT_ONCE: Final = 10  # messages in a request, the most that SQS allows
# How long received messages are hidden from the next look: enough to record them, and soon over after a crash.
_HIDDEN_S: Final = 120


@dataclass(frozen=True)
class PoisonMessage:
    """A message that cannot be read, or not all of it.

    Attributes:
        message_id: The queue's id of it.
        reason: Why, as a sentence.
        body: As it was received.
        received_at: ISO 8601, UTC.
    """

    message_id: str
    reason: str
    body: str
    received_at: str


@dataclass(frozen=True)
class Received:
    """What the queue had to say.

    Attributes:
        events: The newest of each object of the source, sorted by key.
        receipts: What `acknowledge` gives back to the queue: one for each message.
        poison: Messages to be set aside.
        ignored: Test events, other kinds of events, and objects that the source does not read.
        more: Whether messages may have been left in the queue.
    """

    events: tuple[Event, ...] = ()
    receipts: tuple[str, ...] = ()
    poison: tuple[PoisonMessage, ...] = ()
    ignored: int = 0
    more: bool = False


def receive(config: S3Source) -> Received:
    """Take up to `events.batch` messages; without any, wait up to `events.wait_s`. They stay in the queue, hidden.

    Raises:
        SourceRefusedError: No such queue, or no permission.
        SourceError: The queue does not answer now. What was taken comes again.
    """
    settings = _events_of(config)
    messages, more = _take(config.name, settings, queue_endpoint(config))
    source = S3Objects.of(config)
    events: list[Event] = []
    poison: list[PoisonMessage] = []
    strangers: Counter[str] = Counter()
    ignored = 0
    for message in messages:
        said = parse_message(message["Body"], sent_at=_sent_at(message))
        ignored += said.ignored
        if said.problems:
            poison.append(_poison(message, said.problems))
        for bucket, event in said.events:
            key = source.key_of(event.object_key) if bucket == config.bucket else None
            if key is None:
                ignored += 1
                strangers[bucket] += bucket != config.bucket
            else:
                events.append(replace(event, object_key=key))
    for bucket, count in (+strangers).items():
        _log.warning("source %r: %d events are of bucket %s; its queue is not its own", config.name, count, bucket)
    receipts = tuple(message["ReceiptHandle"] for message in messages)
    return Received(tuple(newest_events(events)), receipts, tuple(poison), ignored, more)


def acknowledge(store: Store, config: S3Source, received: Received) -> int:
    """Remove received messages from the queue, after what they say was recorded; unreadable ones are set aside before.

    Returns:
        Number of messages that were removed. Any others come again.

    Raises:
        SourceError: The queue cannot be reached, or refuses.
    """
    for message in received.poison:
        path = f"{_poison_folder(config.name)}/{safe_name(message.message_id)}.json"
        write_text(store, path, json.dumps(asdict(message), indent=2))
        _log.warning("source %r: message %s was set aside: %s", config.name, message.message_id, message.reason)
    queue_url = _events_of(config).queue_url
    removed = 0
    for some in _in_tens(received.receipts):
        entries = [{"Id": str(number), "ReceiptHandle": receipt} for number, receipt in enumerate(some)]
        with errors_about(_about(config.name, queue_url)):
            answer = client(queue_endpoint(config)).delete_message_batch(QueueUrl=queue_url, Entries=entries)
        removed += len(answer.get("Successful", []))
    if removed < len(received.receipts):
        left = len(received.receipts) - removed
        _log.warning("source %r: %d messages could not be removed from %s and come again", config.name, left, queue_url)
    return removed


def poison_messages(store: Store, source: str) -> Iterator[PoisonMessage]:
    """Read the messages of a source that were set aside, newest first. Who has dealt with one removes its file."""
    folder = _poison_folder(source)
    for name in names_in(store, folder):
        text = read_text(store, f"{folder}/{name}") if name.endswith(".json") else None
        if text is not None:
            yield PoisonMessage(**json.loads(text))


def waiting_messages(config: S3Source, *, tries: int = 5) -> int:
    """Return about how many messages wait in the queue.

    Raises:
        SourceRefusedError: No such queue, or no permission.
        SourceError: It cannot be reached.
    """
    queue_url = _events_of(config).queue_url
    with errors_about(_about(config.name, queue_url)):
        answer = client(queue_endpoint(config, tries=tries)).get_queue_attributes(
            QueueUrl=queue_url, AttributeNames=["ApproximateNumberOfMessages"]
        )
    return int(answer["Attributes"]["ApproximateNumberOfMessages"])


def queue_endpoint(config: S3Source, *, tries: int = 5) -> Endpoint:
    """Return where the queue is, by its address: it need not be where the bucket is."""
    parts = urlsplit(_events_of(config).queue_url)
    labels = (parts.hostname or "").split(".")
    of_aws = labels[1] if labels[0] == "sqs" and "amazonaws" in labels else None
    return Endpoint("sqs", f"{parts.scheme}://{parts.netloc}", of_aws or config.region, tries)


def _events_of(config: S3Source) -> SqsEvents:
    if config.events is None:
        raise ConfigError(f"source {config.name!r} has no `events`; expected the address of its queue")
    return config.events


def _take(name: str, settings: SqsEvents, endpoint: Endpoint) -> tuple[list[dict[str, Any]], bool]:
    messages: list[dict[str, Any]] = []
    while len(messages) < settings.batch:
        with errors_about(_about(name, settings.queue_url)):
            answer = client(endpoint).receive_message(
                QueueUrl=settings.queue_url,
                MaxNumberOfMessages=min(_AT_ONCE, settings.batch - len(messages)),
                # Once there are some, whoever waits for one more keeps those waiting.
                WaitTimeSeconds=0 if messages else settings.wait_s,
                VisibilityTimeout=_HIDDEN_S,
                MessageSystemAttributeNames=["SentTimestamp"],
            )
        found = answer.get("Messages", [])
        if not found:
            return messages, False
        messages += found
    return messages, True


def _poison(message: dict[str, Any], problems: Iterable[str]) -> PoisonMessage:
    return PoisonMessage(message["MessageId"], "; ".join(problems), message["Body"], datetime.now(UTC).isoformat())


def _sent_at(message: dict[str, Any]) -> datetime:
    sent_ms = message.get("Attributes", {}).get("SentTimestamp")
    return datetime.fromtimestamp(int(sent_ms) / 1000, UTC) if sent_ms else datetime.now(UTC)


def _poison_folder(source: str) -> str:
    return f"work/events/{source}/poison"


def _about(name: str, queue_url: str) -> str:
    return f"source {name!r}: queue {queue_url}"


def _in_tens(receipts: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(receipts), _AT_ONCE):
        yield receipts[start : start + _AT_ONCE]
