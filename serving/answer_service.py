"""Answers as callers see them: searched, written and verified once for all who ask the same, and kept."""

import asyncio
import logging
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

import orjson

from rag_core import ids
from rag_core.config_serving import ServingConfig
from serving.answers.answerer import Answerer
from serving.answers.model import AnswerResult, Citation, CitedSentence, Turn
from serving.answers.records import Records
from serving.cache.base import Cache
from serving.caller import Caller
from serving.index.snapshot import Snapshot
from serving.observability.metrics import Metrics
from serving.retrieval.query import Found

_LOGGER = logging.getLogger("rag.serving.answers")


@dataclass(frozen=True)
class Asked:
    """A question with all that its answer depends on.

    Attributes:
        question: Normalised.
        history: Earlier messages, oldest first.
        answerer: Who writes the answer.
        model: Its name as the caller gave it.
        max_tokens: Bound of the answer; None: as configured.
        temperature: None: as configured.
        query_key: Of the search, labels included.
    """

    question: str
    history: tuple[Turn, ...]
    answerer: Answerer
    model: str
    max_tokens: int | None
    temperature: float | None
    query_key: str

    @property
    def key(self) -> str:
        """Digest of all this."""
        turns = [f"{turn.role}:{turn.text}" for turn in self.history]
        rest = [str(self.max_tokens), str(self.temperature), self.query_key]
        return ids.digest(self.question.casefold(), self.model, *rest, *turns)


@dataclass
class Finished:
    """A whole answer, as one caller got it."""

    answer_id: str
    result: AnswerResult
    cached: bool


@dataclass
class _Shared:
    """An answer that is being written, for everybody who waits for it."""

    events: list[CitedSentence | AnswerResult] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    task: asyncio.Task[None] | None = None
    readers: int = 0
    error: Exception | None = None
    ended: bool = False


class AnswerService:
    """Made once; safe for all requests of an event loop."""

    def __init__(self, settings: ServingConfig, *, records: Records, cache: Cache, metrics: Metrics) -> None:
        self._settings = settings
        self._records = records
        self._cache = cache
        self._metrics = metrics
        self._writing: dict[str, _Shared] = {}

    async def answer(
        self, caller: Caller, asked: Asked, found: Found, snapshot: Snapshot, answer_id: str
    ) -> AsyncGenerator[CitedSentence | Finished, None]:
        """Give out the sentences of an answer as they are verified, and at last the answer.

        Args:
            caller: Who asks; the record is theirs.
            asked: The question.
            found: Its passages.
            snapshot: Where they were found.
            answer_id: 32 hexadecimal characters, its name from now on.
        """
        asked_at, began = datetime.now(UTC), perf_counter()
        key = f"answer:{found.version}:{asked.key}"
        may_keep = not found.stale and (asked.temperature or self._settings.llm.temperature) == 0
        result = await self._cached(key) if may_keep else None
        cached = result is not None
        self._metrics.cache.labels("answers", "hit" if cached else "miss").inc()
        if result is not None:
            for sentence in result.sentences:
                yield sentence
        else:
            async with aclosing(self._written(key, asked, found, snapshot, may_keep=may_keep)) as events:
                async for event in events:
                    if isinstance(event, AnswerResult):
                        result = event
                    else:
                        yield event
        if result is None:
            raise RuntimeError("the answer ended without a result")
        self._metrics.answers.labels(result.kind, result.degraded).inc()
        self._records.keep(
            result, answer_id=answer_id, asked_at=asked_at, caller=caller, question=asked.question,
            snapshot=snapshot, version=found.version, seconds=perf_counter() - began,
        )  # fmt: skip
        yield Finished(answer_id, result, cached)

    async def _written(
        self, key: str, asked: Asked, found: Found, snapshot: Snapshot, *, may_keep: bool
    ) -> AsyncGenerator[CitedSentence | AnswerResult, None]:
        """Follow the answer that is being written to this question, from its beginning; the first reader starts it."""
        name = key if may_keep else uuid.uuid4().hex
        shared = self._writing.get(name)
        if shared is None:
            shared = self._writing[name] = _Shared()
            work = self._write(name, shared, asked, found, snapshot, key if may_keep else None)
            shared.task = asyncio.create_task(work, name="answer")
        else:
            self._metrics.cache.labels("answers", "shared").inc()
        shared.readers += 1
        try:
            at = 0
            while True:
                async with shared.changed:
                    while len(shared.events) <= at and not shared.ended:
                        await shared.changed.wait()
                while at < len(shared.events):
                    at += 1
                    yield shared.events[at - 1]
                if shared.ended:
                    break
            if shared.error is not None:
                raise shared.error
        finally:
            shared.readers -= 1
            if not shared.readers and not shared.ended and shared.task is not None:
                self._writing.pop(name, None)  # nobody waits for it any more; who asks now begins anew
                shared.task.cancel()

    async def _write(
        self, name: str, shared: _Shared, asked: Asked, found: Found, snapshot: Snapshot, keep_as: str | None
    ) -> None:
        stream = asked.answerer.stream(
            asked.question,
            found.passages,
            index=snapshot.index,
            history=asked.history,
            max_tokens=asked.max_tokens,
            temperature=asked.temperature,
        )
        try:
            async with aclosing(stream) as events:
                async for event in events:
                    if isinstance(event, AnswerResult) and keep_as is not None and not event.degraded:
                        await self._keep(keep_as, event, found.doc_ids)
                    async with shared.changed:
                        shared.events.append(event)
                        shared.changed.notify_all()
        except Exception as error:  # noqa: BLE001 -- told to each reader, whose request it belongs to
            shared.error = error
        finally:
            if self._writing.get(name) is shared:
                del self._writing[name]
            shared.ended = True
            async with shared.changed:
                shared.changed.notify_all()

    async def _keep(self, key: str, result: AnswerResult, doc_ids: Sequence[str]) -> None:
        await self._cache.set(key, orjson.dumps(result), ttl_s=self._settings.cache.answers_ttl_s, doc_ids=doc_ids)

    async def _cached(self, key: str) -> AnswerResult | None:
        data = await self._cache.get(key)
        if data is None:
            return None
        try:
            return _result(orjson.loads(data))
        except (ValueError, TypeError, KeyError):
            _LOGGER.warning("a cached answer cannot be read; it was written by another version")
            return None


def _result(values: dict[str, Any]) -> AnswerResult:
    sentences = [CitedSentence(**{**one, "citations": tuple(one["citations"])}) for one in values.pop("sentences")]
    citations = [
        Citation(**{**one, "heading_path": tuple(one["heading_path"]), "span": tuple(one["span"])})
        for one in values.pop("citations")
    ]
    return AnswerResult(sentences=tuple(sentences), citations=tuple(citations), **values)
