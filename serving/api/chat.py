"""`POST /v1/chat/completions` and `GET /v1/models`: OpenAI's API, with what answers rest on beside it."""

import logging
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from serving.answer_service import Asked, Finished
from serving.answers.model import CitedSentence, Turn
from serving.api import views
from serving.api.dependencies import ALWAYS, CallerNow, RuntimeNow, refusals
from serving.api.models import (
    ChatCompletion,
    ChatMessage,
    ChatRequest,
    Choice,
    ModelCard,
    ModelList,
)
from serving.api.search import check_length
from serving.caller import Caller
from serving.errors import ApiError
from serving.index.snapshot import Snapshot
from serving.retrieval.query import Found, Query, normalised
from serving.runtime import Runtime

_LOGGER = logging.getLogger("rag.serving.chat")
_DONE = b"data: [DONE]\n\n"
_STREAM: dict[str, Any] = {
    "description": "The answer; with `stream`, server-sent events of `chat.completion.chunk`.",
    "content": {"text/event-stream": {}},  # OpenAPI has no schema for a stream of JSON objects and a last [DONE]
}

router = APIRouter(prefix="/v1", tags=["chat"])


@router.get("/models", responses=refusals(*ALWAYS))
async def models(runtime: RuntimeNow, _caller: CallerNow) -> ModelList:
    """List who answers: `rag` is the best there is, `rag-extractive` only quotes."""
    created = int(time.time())
    return ModelList(data=[ModelCard(id=name, created=created) for name in sorted(runtime.parts.answerers)])


@dataclass(frozen=True)
class _Exchange:
    """One question on its way to its answer."""

    runtime: Runtime
    caller: Caller
    asked: Asked
    found: Found
    snapshot: Snapshot
    request_id: str
    answer_id: str
    created: int

    def events(self) -> AsyncGenerator[CitedSentence | Finished, None]:
        return self.runtime.parts.answers.answer(self.caller, self.asked, self.found, self.snapshot, self.answer_id)

    def audit(self, finished: Finished) -> None:
        self.runtime.audit.record(
            "answer",
            self.caller,
            self.request_id,
            answer=self.answer_id,
            kind=finished.result.kind,
            documents=[citation.doc_id for citation in finished.result.citations],
            collection=self.found.collection,
            version=self.found.version,
        )


@router.post(
    "/chat/completions", response_model=ChatCompletion, responses={200: _STREAM, **refusals(400, 404, *ALWAYS)}
)
async def chat(body: ChatRequest, request: Request, runtime: RuntimeNow, caller: CallerNow) -> Any:
    """Answer the last message of the user from the documents that the caller may see, with citations."""
    exchange = await _searched(body, request.state.request_id, runtime, caller)
    if body.stream:
        return StreamingResponse(_stream(exchange), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
    finished: Finished | None = None
    async with aclosing(exchange.events()) as events:
        async for event in events:
            finished = event if isinstance(event, Finished) else finished
    if finished is None:
        raise RuntimeError("the answer ended without a result")
    exchange.audit(finished)
    return ChatCompletion(
        id=f"chatcmpl-{exchange.answer_id}",
        created=exchange.created,
        model=exchange.asked.model,
        choices=[Choice(message=ChatMessage(content=finished.result.text))],
        usage=views.usage_view(finished.result),
        rag=views.rag_view(finished, exchange.found, exchange.snapshot, exchange.request_id),
    )


async def _searched(body: ChatRequest, request_id: str, runtime: Runtime, caller: Caller) -> _Exchange:
    parts, settings = runtime.parts, runtime.config.serving
    answerer = parts.answerers.get(body.model)
    if answerer is None:
        names = ", ".join(sorted(parts.answerers))
        raise ApiError(404, "model_not_found", f"no such model; there are: {names}", param="model")
    question, history = _conversation(body, settings.limits.question_chars)
    query = Query(
        text=_searched_text(question, history),
        mode=body.mode,
        top_k=settings.retrieval.passages,
        filters=views.filters_of(body.filters),
        rerank=settings.retrieval.rerank_model is not None,
        neighbours=settings.retrieval.neighbours,
        passage_tokens=settings.retrieval.passage_tokens,
    )
    found, snapshot = await parts.search.search_again(caller, query)
    if not found.stale:
        runtime.records.asked(query.text, query.mode)
    asked = Asked(
        question=question,
        history=history,
        answerer=answerer,
        model=body.model,
        max_tokens=body.max_completion_tokens or body.max_tokens,
        temperature=body.temperature,
        query_key=query.with_labels(snapshot.labels_for(caller)).key,
    )
    return _Exchange(runtime, caller, asked, found, snapshot, request_id, uuid.uuid4().hex, int(time.time()))


def _conversation(body: ChatRequest, most_chars: int) -> tuple[str, tuple[Turn, ...]]:
    """Return the question and what was said before it. Instructions of callers are not taken: passages answer."""
    said = [message for message in body.messages if message.role in ("user", "assistant")]
    if not said or said[-1].role != "user" or not (question := normalised(said[-1].text)):
        raise ApiError(400, "no_question", "the last message must be the user's, and hold a question", param="messages")
    check_length(question, most_chars, "messages")
    turns = (
        Turn("assistant" if message.role == "assistant" else "user", normalised(message.text)[:most_chars])
        for message in said[:-1]
    )
    return question, tuple(turn for turn in turns if turn.text)


_FEW_WORDS = 4


def _searched_text(question: str, history: tuple[Turn, ...]) -> str:
    """Return what is searched for: "And abroad?" is searched for with the question before it."""
    before = [turn.text for turn in history if turn.role == "user"]
    return f"{before[-1]} {question}" if before and len(question.split()) < _FEW_WORDS else question


async def _stream(exchange: _Exchange) -> AsyncIterator[bytes]:
    finished: Finished | None = None
    first = True
    try:
        yield _chunk(exchange, {"role": "assistant", "content": ""}, rag=_first(exchange))
        async with aclosing(exchange.events()) as events:
            async for event in events:
                if isinstance(event, Finished):
                    finished = event
                else:
                    yield _chunk(exchange, {"content": event.text if first else f" {event.text}"})
                    first = False
        if finished is None:
            raise RuntimeError("the answer ended without a result")
        if first and finished.result.text:
            yield _chunk(exchange, {"content": finished.result.text})
        exchange.audit(finished)
        rag = views.rag_view(finished, exchange.found, exchange.snapshot, exchange.request_id)
        usage = views.usage_view(finished.result)
        yield _chunk(
            exchange, {}, finish="stop", rag=rag.model_dump(mode="json"), usage=usage.model_dump(mode="json"),
        )  # fmt: skip
    except ApiError as error:
        yield _data(error.body())
    except Exception:  # the status is sent already: the stream itself must say it
        _LOGGER.exception("an answer broke off")
        yield _data(ApiError(500, "internal_error", "the answer broke off; the log has the reason").body())
    yield _DONE


def _first(exchange: _Exchange) -> dict[str, Any]:
    """Say what is being read, before the first sentence."""
    passages = [
        {
            "number": number,
            "title": one.hit.title,
            "uri": one.hit.uri,
            "doc_id": one.hit.doc_id,
            "chunk_id": one.hit.chunk_id,
        }
        for number, one in enumerate(exchange.found.passages, start=1)
    ]
    return {"answer_id": exchange.answer_id, "passages": passages}


def _chunk(
    exchange: _Exchange,
    delta: dict[str, Any],
    *,
    finish: str | None = None,
    rag: dict[str, Any] | None = None,
    usage: dict[str, Any] | None = None,
) -> bytes:
    values: dict[str, Any] = {
        "id": f"chatcmpl-{exchange.answer_id}",
        "object": "chat.completion.chunk",
        "created": exchange.created,
        "model": exchange.asked.model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}],
    }
    return _data(values | ({"rag": rag} if rag else {}) | ({"usage": usage} if usage else {}))


def _data(values: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(values) + b"\n\n"
