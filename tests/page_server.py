"""The real page over endpoints that answer what a test says, so that every state of it can be shown."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from serving.observability.metrics import Metrics
from serving.observability.middleware import EdgeMiddleware
from serving.page.routes import page_routes

TEXT = "😀 Pumps — 泵.\n\n" + "The operator reads the gauge. " * 60 + "\n\nThe valve opens at noon 😀 sharp.\n\nEnd."
QUOTE = "The valve opens at noon 😀 sharp."
START = TEXT.index(QUOTE)
CITATION = {
    "number": 1, "chunk_id": "c" * 32, "doc_id": "d" * 32, "uri": "file:///docs/pumps.md", "title": "Pumps",
    "source": "manuals", "page": 3, "heading_path": ["Valves", "Hours"], "span": [START, START + len(QUOTE)],
    "quote": QUOTE, "text_hash": "0" * 32,
}  # fmt: skip
INDEX = {
    "collection": "rag_1", "version": "abcdef0123456789", "published_at": "2026-03-01T12:00:00Z", "age_s": 60.0,
    "model": "minilm", "documents": 1398, "chunks": 1775, "recall_at_10": 0.9987, "llm": False, "problem": None,
    "sources": [
        {"name": "manuals", "state": "ok", "oldest_pending_age_s": None},
        {"name": "wiki", "state": "fast_burn", "oldest_pending_age_s": 7300.0},
    ],
}  # fmt: skip
Answering = Callable[["PageServer", dict[str, Any]], Response]


def extras(**changes: Any) -> dict[str, Any]:
    """Return what the last chunk of an answer carries."""
    sentence = {"text": f"{QUOTE} [1]", "citations": [1], "supported": True, "support": 1.0}
    index = {"collection": "rag_1", "version": "abc", "published_at": "2026-03-01T12:00:00Z", "stale": False}
    return {
        "answer_id": "a" * 32, "kind": "extractive", "degraded": "", "citations": [CITATION], "sentences": [sentence],
        "index": index, "cached": False, "request_id": "r",
    } | changes  # fmt: skip


def chunk(delta: dict[str, Any], *, finish: str | None = None, **more: Any) -> bytes:
    """Return an event of an answer."""
    values = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}
    return b"data: " + json.dumps(values, ensure_ascii=False).encode() + b"\n\n"


def answers(rag: dict[str, Any] | None = None, *, until: int | None = None, step: int = 7) -> Answering:
    """Stream an answer in pieces of a few bytes, which end anywhere; cut it off after `until` bytes."""
    rag = rag or extras()

    def answer(server: "PageServer", _body: dict[str, Any]) -> Response:
        whole = chunk({"role": "assistant", "content": ""}, rag={"answer_id": "a" * 32, "passages": [CITATION] * 2})
        for at, sentence in enumerate(rag["sentences"]):
            whole += chunk({"content": sentence["text"] if at == 0 else f" {sentence['text']}"})
        last = chunk({}, finish="stop", rag=rag) + b"data: [DONE]\n\n"

        async def stream() -> AsyncIterator[bytes]:
            for at in range(0, len(whole), step):
                yield whole[at : at + step]
            while not server.go_on.is_set():
                await asyncio.sleep(0.02)
            yield last

        async def cut_off() -> AsyncIterator[bytes]:
            yield whole[:until]

        return StreamingResponse(stream() if until is None else cut_off(), media_type="text/event-stream")

    return answer


def refuses(status: int, message: str, **headers: str) -> Answering:
    """Refuse."""
    error = {"message": message, "type": "x", "param": None, "code": "x"}
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _server, _body: JSONResponse({"error": error}, status_code=status, headers=names)


@dataclass
class PageServer:
    """What the page is told, and what it asked."""

    answering: Answering = field(default_factory=answers)
    needed_key: str | None = None
    index: dict[str, Any] = field(default_factory=lambda: INDEX)
    document: dict[str, Any] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)
    feedback: list[dict[str, Any]] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def app(self) -> FastAPI:
        app = FastAPI()
        app.include_router(page_routes())

        @app.middleware("http")
        async def keys(request: Request, go: Any) -> Any:
            wanted = f"Bearer {self.needed_key}"
            if (
                self.needed_key
                and request.url.path.startswith("/v1")
                and request.headers.get("authorization") != wanted
            ):
                return refuses(401, "the key is not known")(self, {})
            return await go(request)

        @app.get("/v1/index")
        async def index() -> dict[str, Any]:
            return self.index

        @app.post("/v1/chat/completions")
        async def chat(request: Request) -> Response:
            self.asked.append(await request.json())
            return self.answering(self, self.asked[-1])

        @app.get("/v1/documents/{doc_id}")
        async def document(doc_id: str) -> dict[str, Any]:
            values = {"doc_id": doc_id, "source": "manuals", "uri": CITATION["uri"], "title": "Pumps", "text": TEXT}
            return values | {"modified_at": "2026-02-03T04:05:06Z"} | self.document

        @app.post("/v1/feedback", status_code=201)
        async def feedback(request: Request) -> dict[str, str]:
            self.feedback.append(await request.json())
            return {"feedback_id": "f"}

        app.add_middleware(EdgeMiddleware, metrics=Metrics(), body_bytes=100_000, local_only=False)
        return app


@contextmanager
def page_server() -> Iterator[PageServer]:
    """Serve the page."""
    served = PageServer()
    served.go_on.set()
    server = uvicorn.Server(uvicorn.Config(served.app(), port=0, log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, name="page")
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the page's server did not start"
            time.sleep(0.02)
        served.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        yield served
    finally:
        served.go_on.set()
        server.should_exit = True
        thread.join(20)
