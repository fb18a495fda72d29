"""One tick of a source's sensor: take what the queue says, or list; and keep in the store what stands in the way."""

import json
import time
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from rag_core.alerts.reading import last_look_path, problem_path
from rag_core.config import RagConfig, S3Source
from rag_core.errors import RagError
from rag_core.freshness.observation import LookCursor, Observation, Problem, observe, observe_events
from rag_core.freshness.told import told
from rag_core.reports.pages import read_text, write_text
from rag_core.sources.s3_events import acknowledge, receive
from rag_core.tables.store import Store


@dataclass(frozen=True)
class Looked:
    """What a tick saw; `cursor` is for the next one."""

    observation: Observation
    cursor: str


def look_at(store: Store, config: RagConfig, source_name: str, *, now: datetime, cursor: str | None) -> Looked:
    """Look at a source once: by its queue if it has one and the last listing is not too old, else by listing it.

    A source that cannot be looked at is no error here: the observation has the problem, and the store keeps it until a
    look succeeds.
    """
    source = config.source(source_name)
    before = LookCursor.loads(cursor)
    is_told = isinstance(source, S3Source) and source.events is not None and _is_listed(source, before, now)
    if is_told:
        assert isinstance(source, S3Source)
        observation = _told(store, config, source, before, now=now)
    else:
        observation = observe(store, config, source_name, now=now, cursor=before)
    _note(store, observation, now)
    return Looked(observation, observation.cursor.dumps())


def _is_listed(source: S3Source, before: LookCursor, now: datetime) -> bool:
    """Whether the newest complete listing is young enough for events to be all that is new; one under way goes on."""
    assert source.events is not None
    if before.looked_at is None or before.position is not None:
        return False
    return now - before.looked_at < timedelta(seconds=source.events.list_every_s)


def _told(store: Store, config: RagConfig, source: S3Source, before: LookCursor, *, now: datetime) -> Observation:
    """Take messages, record what they say, and only then remove them from the queue.

    As many as are there, but no longer than a listing may take: the next look goes on.
    """
    began = time.perf_counter()

    def clock() -> datetime:
        # What is told was not seen before it was received: a run that listed meanwhile does not cover it.
        return now + timedelta(seconds=time.perf_counter() - began)

    observation = observe_events(store, config, source.name, (), now=now, cursor=before)
    try:
        while True:
            received = receive(source)
            if received.events:
                cursor = observation.cursor
                observation = told(store, config, source.name, received.events, now=clock(), cursor=cursor)
                if not observation.complete:
                    return observation  # the messages come again
            acknowledge(store, source, received)
            if not received.more or time.perf_counter() - began > config.freshness.list_budget_s:
                return observation
    except RagError as error:
        return replace(observation, complete=False, problem=Problem("listing_failed", str(error)))


def _note(store: Store, observation: Observation, now: datetime) -> None:
    """Keep the problem, with when it began, or when the newest complete look was."""
    source = observation.source
    known = read_text(store, problem_path(source))
    if observation.problem is not None:
        before: dict[str, Any] = json.loads(known or "{}")
        same = before.get("kind") == observation.problem.kind
        since = before["since"] if same else now.isoformat()
        found = {"kind": observation.problem.kind, "message": observation.problem.message, "since": since}
        if found != before:
            write_text(store, problem_path(source), json.dumps(found))
        return
    if not observation.complete:
        return
    if known and known != "{}":
        write_text(store, problem_path(source), "{}")
    write_text(store, last_look_path(source), json.dumps({"started_at": now.isoformat()}))
