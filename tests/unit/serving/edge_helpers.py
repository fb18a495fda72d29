"""A small app behind the edge middleware."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse

from serving.errors import ApiError
from serving.observability.metrics import Metrics
from serving.observability.middleware import EdgeMiddleware
from serving.observability.request_ids import REQUEST_ID

BODY_BYTES = 1_000


class Edge:
    """The app, its metrics, and a gate that its stream waits at."""

    def __init__(self, **options: Any) -> None:
        self.metrics = Metrics()
        self.gate = asyncio.Event()
        self.app = FastAPI(telemetry={"tracing": False, "metrics": False, "logs": False})  # as the service's
        self._add_routes()
        self.app.add_middleware(EdgeMiddleware, metrics=self.metrics, body_bytes=BODY_BYTES, **options)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    def client(self, **options: Any) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://localhost", **options)

    def _add_routes(self) -> None:
        app, metrics = self.app, self.metrics

        @app.exception_handler(ApiError)
        async def refused(_request: Request, error: ApiError) -> JSONResponse:
            return JSONResponse(error.body(), status_code=error.status, headers=error.all_headers())

        @app.get("/v1/things/{thing_id}")
        async def thing(thing_id: str, request: Request) -> dict[str, Any]:
            request.state.caller = "key:ci"
            with metrics.stage("embed"), metrics.stage("dense"):
                in_thread = await asyncio.to_thread(REQUEST_ID.get)
            return {"state": request.state.request_id, "context": REQUEST_ID.get(), "thread": in_thread}

        @app.post("/v1/json")
        async def json(body: list[str]) -> int:
            return len("".join(body))

        @app.post("/v1/raw")
        async def raw(request: Request) -> int:
            return sum([len(part) async for part in request.stream()])

        @app.get("/v1/stream")
        async def stream() -> StreamingResponse:
            return StreamingResponse(self._gated(), media_type="text/event-stream")

        @app.get("/v1/half")
        async def half() -> StreamingResponse:
            return StreamingResponse(self._broken())

        @app.get("/v1/broken")
        async def broken() -> None:
            with metrics.stage("fetch"):
                raise ValueError("the text of a secret document")

        @app.get("/v1/refused")
        async def refuse() -> None:
            raise ApiError(503, "overloaded", "later", retry_after_s=2)

        @app.get("/healthz")
        async def healthz() -> dict[str, str]:
            return {"status": "ok"}

        @app.get("/page/app.js")
        async def script() -> PlainTextResponse:
            return PlainTextResponse("", headers={"Cache-Control": "public, max-age=60"})

    async def _gated(self) -> AsyncIterator[bytes]:
        yield b"data: one\n\n"
        await self.gate.wait()
        yield b"data: two\n\n"

    async def _broken(self) -> AsyncIterator[bytes]:
        yield b"one"
        raise ValueError("the text of a secret document")


async def called(
    app: Callable[..., Any], path: str, *, receive: Callable[[], Any], send: Callable[[Any], Any], **scope: Any
) -> None:
    """Call an app as a server would, with the messages in one's own hands."""
    await app(
        {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            **scope,
        },
        receive,
        send,
    )
