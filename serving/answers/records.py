"""The record of answers, feedback and questions, written to the store in the background, a batch at a time."""

import asyncio
import logging
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from cachetools import LRUCache
from deltalake.exceptions import DeltaError

from rag_core.config_serving import ServingConfig
from rag_core.errors import RagError
from rag_core.tables.store import Store
from serving.answers.archive import Archive
from serving.answers.model import AnswerResult
from serving.answers.questions import QuestionCounts, most_frequent
from serving.answers.rows import Row, answer_row, cited_of, storable
from serving.caller import Caller
from serving.errors import ApiError
from serving.index.snapshot import Snapshot
from serving.observability.metrics import Metrics

T = TypeVar("T")

_LOGGER: Final = logging.getLogger("rag.serving.records")
_FLUSH_S: Final = 1.0
_ASKED_S: Final = 30.0
_LONGEST_WAIT_S: Final = 60.0
_BATCH: Final = 1_000
_PENDING: Final = 10_000
_RECENT: Final = 1_000
_LAST_TRIES: Final = 3
_STORE_FAILS: Final = (DeltaError, RagError, OSError)


class Records:
    """Made once; used from one event loop. With `keep_answers` off nothing is written, and answers are soon forgotten.

    Args:
        store: Holds the tables.
        settings: Of the service.
        metrics: Told of feedback.
    """

    def __init__(self, store: Store, settings: ServingConfig, metrics: Metrics) -> None:
        self._archive = Archive(store)
        self._keeps = settings.keep_answers
        self._metrics = metrics
        self._pending: dict[str, Row] = {}  # the oldest first
        self._recent: LRUCache[str, Row] = LRUCache(_RECENT)
        self._lost = 0
        self._counts = QuestionCounts()
        self._flushing = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._run(), name="records")

    async def stop(self) -> None:
        """Write what is left, and end."""
        self._stopping.set()
        if self._task is not None:
            await self._task
        for attempt in range(_LAST_TRIES):
            await asyncio.sleep(attempt * _FLUSH_S)
            if await self.flush(counts=True):
                return
        _LOGGER.error("%d answers were lost: the store cannot be written", len(self._pending))

    def keep(
        self,
        answer: AnswerResult,
        *,
        answer_id: str,
        asked_at: datetime,
        caller: Caller,
        question: str,
        snapshot: Snapshot,
        version: str,
        seconds: float,
    ) -> None:
        """Keep an answer: readable at once, written soon.

        Args:
            answer: As it was given out.
            answer_id: Unique.
            asked_at: When.
            caller: Who asked.
            question: What.
            snapshot: Of the index that was searched.
            version: Of what was searched.
            seconds: From the request to the last word.
        """
        self._pending[answer_id] = answer_row(
            answer, answer_id=answer_id, asked_at=asked_at, caller=caller, question=question, snapshot=snapshot,
            version=version, seconds=seconds,
        )  # fmt: skip
        while len(self._pending) > _PENDING:
            del self._pending[next(iter(self._pending))]
            self._lost += 1

    def asked(self, question: str, mode: str) -> None:
        """Count a question."""
        if self._keeps:
            self._counts.add(question, mode)

    async def frequent(self, limit: int) -> list[tuple[str, str]]:
        """Return (question, mode), the most frequent of the last 30 days first; fewer while the store fails."""
        if not self._keeps or limit < 1:
            return []
        counts = self._counts.now
        try:
            return await asyncio.to_thread(most_frequent, self._archive.store, counts, limit)
        except _STORE_FAILS as error:
            _LOGGER.warning("frequent questions cannot be read: %s", error)
            return most_frequent(None, counts, limit)

    async def answer(self, answer_id: str, caller: Caller) -> dict[str, Any] | None:
        """Return an answer again, with what became of the chunks that it cites: `current`, `changed` or `gone`.

        Whether the caller may still see what is cited is for the caller of this to check: see `rows.cited_docs`.

        Returns:
            The row, with sentences and citations parsed; a citation has the Dagster run that wrote its chunk into the
            index, null if that is not known. None: no such answer, or another caller's.

        Raises:
            ApiError: 503, the store cannot be read.
        """
        row = await self._row(answer_id, caller)
        return None if row is None else await _from_store(self._archive.replay, row)

    async def feedback(
        self, answer_id: str, caller: Caller, *, rating: str, comment: str = "", chunk_ids: Sequence[str] = ()
    ) -> str | None:
        """Keep a thumb for an answer; it is in the store when this returns.

        Args:
            answer_id: The answer.
            caller: Who asked.
            rating: up or down.
            comment: In their words.
            chunk_ids: Cited chunks that it is about; empty: the answer as a whole.

        Returns:
            Id of the feedback. None: no such answer, or another caller's.

        Raises:
            ApiError: 409, nothing is kept here; 400, a chunk is not cited by the answer; 503, the store fails.
        """
        if not self._keeps:
            raise ApiError(409, "feedback_not_kept", "this service keeps no feedback (serving.keep_answers)")
        row = await self._row(answer_id, caller)
        if row is None:
            return None
        if not {*chunk_ids} <= {citation["chunk_id"] for citation in cited_of(row)}:
            raise ApiError(400, "chunk_not_cited", "feedback is about chunks that the answer cites", param="chunk_ids")
        feedback = {
            "feedback_id": uuid.uuid4().hex,
            "answer_id": answer_id,
            "given_at": datetime.now(UTC),
            "caller": caller.id,
            "rating": rating,
            "comment": storable(comment),
            "chunk_ids": list(chunk_ids),
        }
        await _from_store(self._archive.write_feedback, feedback)
        self._metrics.feedback.labels(rating).inc()
        return str(feedback["feedback_id"])

    async def flush(self, *, counts: bool = False) -> bool:
        """Write all that is pending.

        Args:
            counts: Counts of questions, too.

        Returns:
            False if the store cannot be written: all of it is pending still.
        """
        async with self._flushing:
            try:
                while self._pending:
                    await self._flush_some()
                if counts and self._keeps:
                    await self._flush_counts()
            except Exception as error:  # noqa: BLE001 -- the task outlives whatever fails; what is pending is tried again
                why = error if isinstance(error, _STORE_FAILS) else type(error).__name__
                _LOGGER.warning("%d answers cannot be written yet: %s", len(self._pending), why)
                return False
            finally:
                if self._lost:
                    _LOGGER.error("%d answers were lost: the store could not be written for too long", self._lost)
                    self._lost = 0
        return True

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        counted, wait_s = clock(), _FLUSH_S
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), wait_s)
            due = clock() - counted >= _ASKED_S
            written = await self.flush(counts=due)
            counted = clock() if due and written else counted
            wait_s = _FLUSH_S if written else min(2 * wait_s, _LONGEST_WAIT_S)

    async def _flush_some(self) -> None:
        some = list(self._pending.values())[:_BATCH]
        rows = await asyncio.to_thread(self._archive.blamed, some)
        if self._keeps:
            await asyncio.to_thread(self._archive.write_answers, rows)
        for row in rows:
            self._pending.pop(row["answer_id"], None)
            self._recent[row["answer_id"]] = row

    async def _flush_counts(self) -> None:
        counts = self._counts.take()
        try:
            await asyncio.to_thread(self._archive.write_counts, counts)
        except BaseException:
            self._counts.give_back(counts)
            raise

    async def _row(self, answer_id: str, caller: Caller) -> Row | None:
        row = self._pending.get(answer_id) or self._recent.get(answer_id)
        if row is None and self._keeps:
            row = await _from_store(self._archive.answer, answer_id)
        return row if row is not None and (caller.sees_all or row["caller"] == caller.id) else None


async def _from_store(work: Callable[..., T], *args: Any) -> T:
    try:
        return await asyncio.to_thread(work, *args)
    except _STORE_FAILS as error:
        _LOGGER.warning("the store fails: %s", error)
        raise ApiError(
            503, "store_unavailable", "the store cannot be reached; try again later", retry_after_s=5
        ) from error
