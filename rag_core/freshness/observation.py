"""Looks at a source: lists it, or is told of changes, compares with the look before, and records what changed.

Nothing is downloaded. A look that fails, or shows so little of the source that it cannot be true, changes nothing.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final

from rag_core.config import RagConfig
from rag_core.errors import RagError
from rag_core.freshness.concluding import Before, Conclusion, ToldChange, conclude, conclude_told, implausible
from rag_core.freshness.look import Look
from rag_core.freshness.look_files import LookFiles, OvertakenError
from rag_core.freshness.observed import LookCursor, Observation, Problem
from rag_core.freshness.shrink import check_shrink
from rag_core.schemas import SOURCE_CHANGES
from rag_core.sources.base import ListedObject, ResumableSource
from rag_core.sources.factory import open_source
from rag_core.tables.store import Store

__all__ = ["LookCursor", "Observation", "Problem", "check_shrink", "observe", "observe_events", "seen_counts"]

_BATCH: Final = 2_000  # objects compared at once where a source gives no pages


def observe(
    store: Store,
    config: RagConfig,
    source_name: str,
    *,
    now: datetime,
    cursor: LookCursor | None = None,
    listing: Iterable[ListedObject] | None = None,
    accept_shrink: bool = False,
) -> Observation:
    """Look at a source, and record what changed since the look before.

    Args:
        store: Holds the tables and what looks leave.
        config: Sources and limits.
        source_name: Name of the source.
        now: The time when this is called.
        cursor: What the look before returned. Without one, a listing that another process left unfinished begins again.
        listing: All objects, listed from `now` on; None: the source is listed, as long as `list_budget_s` allows.
        accept_shrink: Let any share of the source vanish at once.

    Returns:
        What was seen. If another process looks at the source all the time, an incomplete look.

    Raises:
        KeyError: No such source.
    """
    eye = _Eye(store, config, source_name, now, cursor or LookCursor())
    with eye.files.locked(config.freshness.list_budget_s) as is_ours:
        with suppress(OvertakenError):
            if is_ours:
                return eye.look(listing, accept_shrink=accept_shrink)
        return eye.result()


def observe_events(
    store: Store,
    config: RagConfig,
    source_name: str,
    events: Sequence[ToldChange],
    *,
    now: datetime,
    cursor: LookCursor | None = None,
) -> Observation:
    """Record what events say of objects, each of another object.

    Events may be told again, and old ones late: what is known already is not recorded. A source that was never listed,
    or not since it was configured otherwise, is listed instead. An unfinished listing is begun again by this.

    Returns:
        What was recorded. The events may be forgotten only if `complete`.

    Raises:
        KeyError: No such source.
    """
    eye = _Eye(store, config, source_name, now, cursor or LookCursor())
    with eye.files.locked(config.freshness.list_budget_s) as is_ours:
        with suppress(OvertakenError):
            if is_ours:
                return eye.hear(events)
        return eye.result()


def seen_counts(store: Store, config: RagConfig, source_name: str) -> dict[str, int]:
    """Count the objects of the newest look by partition; empty if there was none."""
    before = _Eye(store, config, source_name, datetime.now(UTC), LookCursor()).before()
    keys = before.partition_keys
    return {} if before.state is None else dict(zip(keys, before.snapshot.counts(len(keys)), strict=True))


class _Eye:
    """One look at one source."""

    def __init__(self, store: Store, config: RagConfig, source_name: str, now: datetime, cursor: LookCursor) -> None:
        self.files = LookFiles(store, source_name)
        self._store, self._config, self._source = store, config, config.source(source_name)
        self._now, self._cursor = now, cursor
        self._began = time.perf_counter()

    def clock(self) -> datetime:
        """Return the time now, going on from `now`."""
        return self._now + timedelta(seconds=time.perf_counter() - self._began)

    def before(self) -> Before:
        """Return what the look before left; what a process did not finish is finished first."""
        state = self.files.recover()
        times = [time for time in (self._cursor.looked_at, state.looked_at if state else None) if time is not None]
        looked_at = min(max(times), self._now) if times else None
        return Before(self._store, self._config, self._source, state, looked_at)

    def look(self, listing: Iterable[ListedObject] | None, *, accept_shrink: bool) -> Observation:
        """List the source, or go on listing it."""
        before = self.before()
        look, position = self._begun(before) if listing is None else (self._fresh(before), None)
        started_at = (self._cursor.started_at if position else None) or self._now
        try:
            for page, listed_at, reached in self._pages(listing, position):
                look.add(page, listed_at)
                if reached and time.perf_counter() - self._began > self._config.freshness.list_budget_s:
                    return self._interrupted(before, look, started_at, reached)
        except RagError as error:
            return self._failed(Problem("listing_failed", str(error)))
        look.check_new()
        if look.repeated:
            repeated = f"source {self._source.name!r} lists {look.repeated!r} twice; keys must be unique"
            return self._failed(Problem("listing_failed", repeated))
        if not accept_shrink and (message := implausible(before, look)):
            return self._failed(Problem("implausible_shrink", message))
        seen_at = self.clock()
        conclusion = conclude(before, look, started_at=started_at, seen_at=seen_at)
        return self._recorded(before, conclusion, objects=look.objects, seen_at=seen_at, started_at=started_at)

    def hear(self, events: Sequence[ToldChange]) -> Observation:
        """Take what events say."""
        before = self.before()
        if not before.is_configured_alike:
            return self.look(None, accept_shrink=False)
        seen_at = self.clock()
        conclusion = conclude_told(before, events, seen_at=seen_at)
        return self._recorded(before, conclusion, objects=len(events), seen_at=seen_at, started_at=None)

    def result(self, **values: Any) -> Observation:
        """Return an incomplete look, but for these values."""
        incomplete = Observation(
            source=self._source.name,
            look=self._cursor.look,
            seen_at=self.clock(),
            changes=SOURCE_CHANGES.empty_table(),
            objects=0,
            complete=False,
            problem=None,
            unsettled=0,
            cursor=self._cursor,
            seconds=time.perf_counter() - self._began,
        )
        return replace(incomplete, **values)

    def _fresh(self, before: Before) -> Look:
        return Look(self._source.name, before.snapshot, take_all=before.is_moved)

    def _begun(self, before: Before) -> tuple[Look, str | None]:
        """Return the unfinished look that the cursor means, if nothing has changed since, and where it goes on."""
        if self._cursor.position is not None and (partial := self.files.read_partial()):
            arrays, facts = partial
            if facts == self._facts(before, self._cursor):
                look = Look.continued(self._source.name, before.snapshot, arrays, take_all=before.is_moved)
                return look, self._cursor.position
        return self._fresh(before), None

    def _facts(self, before: Before, cursor: LookCursor) -> dict[str, Any]:
        """Return what an unfinished look depends on."""
        look = before.state.look if before.state is not None else 0
        started_at = cursor.started_at.isoformat() if cursor.started_at else ""
        return {
            "look": look,
            "settings": before.settings,
            "buckets": len(before.partition_keys),
            "started_at": started_at,
            "position": cursor.position,
        }

    def _pages(
        self, listing: Iterable[ListedObject] | None, position: str | None
    ) -> Iterator[tuple[Sequence[ListedObject], datetime, str | None]]:
        """List page by page: objects, when their listing began, and where it goes on."""
        source = open_source(self._source) if listing is None else None
        if isinstance(source, ResumableSource):
            while True:
                listed_at = self.clock()
                page, position = source.list_page(position)
                yield page, listed_at, position
                if position is None:
                    return
        objects = iter(source.list() if source is not None else listing or ())
        while True:
            listed_at = self.clock() if source is not None else self._now
            page = list(islice(objects, _BATCH))
            if not page:
                return
            yield page, listed_at, None

    def _interrupted(self, before: Before, look: Look, started_at: datetime, position: str) -> Observation:
        cursor = replace(self._cursor, started_at=started_at, position=position)
        self.files.write_partial(look.arrays(), self._facts(before, cursor))
        return self.result(cursor=cursor, objects=look.objects)

    def _failed(self, problem: Problem) -> Observation:
        self.files.remove_partial()  # also where only its place has become wrong: the next look begins again
        return self.result(problem=problem, cursor=replace(self._cursor, started_at=None, position=None))

    def _recorded(
        self, before: Before, conclusion: Conclusion, *, objects: int, seen_at: datetime, started_at: datetime | None
    ) -> Observation:
        state = before.state
        if conclusion.is_news or state is None:
            state = conclusion.state
            self.files.write(state, conclusion.changes)
        elif started_at is not None:
            self.files.note_unchanged(state, started_at)
        if started_at is not None:
            self.files.remove_partial()
        return self.result(
            look=state.look,
            seen_at=seen_at,
            changes=conclusion.changes,
            objects=objects,
            complete=True,
            unsettled=len(state.unsettled),
            cursor=LookCursor(state.look, started_at or before.looked_at),
        )
