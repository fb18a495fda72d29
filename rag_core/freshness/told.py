"""What messages of a bucket say, made true before it is recorded.

Messages come in any order, late, and again. Of those that come together the newest counts (`newest_events`). What is
older than something that was recorded before could turn an object back to a state that it no longer has; whether it
does is not told by the message, so the object itself is looked at. That takes no memory of each object, and holds for
servers without sequencers too.
"""

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Final

from rag_core.config import RagConfig, S3Source
from rag_core.errors import ConfigError
from rag_core.freshness.observation import LookCursor, Observation, observe_events
from rag_core.reports.pages import read_text, write_text
from rag_core.sources.s3 import S3Objects
from rag_core.sources.s3_messages import Event, as_found, newest_events
from rag_core.tables.store import Store

_LOOKS_AT_ONCE: Final = 8
# Listings are dated by this machine's clock, events by the server's.
_CLOCKS_DIFFER: Final = timedelta(seconds=5)


def told(
    store: Store,
    config: RagConfig,
    source_name: str,
    events: Sequence[Event],
    *,
    now: datetime,
    cursor: LookCursor | None = None,
) -> Observation:
    """Record what happened to objects of a source, by the events that a queue gave.

    Told again, or in another order, the same events leave the same state. A source that was never listed is listed
    instead.

    Args:
        store: Holds the tables and what looks leave.
        config: Sources and limits.
        source_name: Name of a source of kind `s3`.
        events: In any order; several may be of one object.
        now: The time when this is called.
        cursor: What the look before returned.

    Returns:
        As `observe_events`. The messages may be removed from the queue only if `complete`.

    Raises:
        SourceError: An object could not be looked at; nothing was recorded.
    """
    source = config.source(source_name)
    if not isinstance(source, S3Source):
        raise ConfigError(f"source {source_name!r} is of kind {source.kind}; only `s3` sources have events")
    began = time.perf_counter()
    newest = newest_events(events)
    recorded = _recorded_until(store, source_name, cursor)
    settled = _looked_up(S3Objects.of(source), newest, recorded)
    now += timedelta(seconds=time.perf_counter() - began)  # what was looked up was not seen before
    observation = observe_events(store, config, source_name, settled, now=now, cursor=cursor)
    if observation.complete and newest:
        # a server whose clock is ahead must not make all that follows late
        latest = min(max(event.event_time for event in newest), now)
        if recorded is None or latest > recorded:
            write_text(store, _path(source_name), json.dumps({"recorded_until": latest.isoformat()}))
    return observation


def _recorded_until(store: Store, source: str, cursor: LookCursor | None) -> datetime | None:
    """Return the time of the newest event that was recorded, or of the newest listing; None: there was none."""
    text = read_text(store, _path(source))
    times = [datetime.fromisoformat(json.loads(text)["recorded_until"])] if text else []
    if cursor is not None and cursor.looked_at is not None:
        times.append(cursor.looked_at + _CLOCKS_DIFFER)
    return max(times, default=None)


def _looked_up(source: S3Objects, events: Sequence[Event], recorded: datetime | None) -> list[Event]:
    """Look at the objects of events that are late, or that leave open what became of the object."""

    def settled(event: Event) -> Event:
        return as_found(event, source.look(event.object_key))

    def is_open(event: Event) -> bool:
        return not event.is_certain or (recorded is not None and event.event_time <= recorded)

    with ThreadPoolExecutor(_LOOKS_AT_ONCE) as pool:
        found = pool.map(settled, [event for event in events if is_open(event)])
        return [next(found) if is_open(event) else event for event in events]


def _path(source: str) -> str:
    return f"work/events/{source}/recorded.json"
