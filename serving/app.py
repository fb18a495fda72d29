"""The app: routes, refusals and the service behind them."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from rag_core.config import RagConfig
from rag_core.errors import PermanentError, TransientError
from serving.api import answers, chat, documents, health, search
from serving.errors import ApiError, index_unavailable
from serving.observability.middleware import EdgeMiddleware
from serving.observability.tracing import setup_tracing
from serving.page.routes import page_routes
from serving.runtime import Runtime

_LOGGER = logging.getLogger("rag.serving")
_RETRY_S = 2.0
_BROKEN_S = 30.0


def create_app(config: RagConfig) -> FastAPI:
    """Make the app of a configuration; nothing is connected before it starts.

    Raises:
        ConfigError: See `Runtime`.
    """
    runtime = Runtime(config)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        end_tracing = setup_tracing(config.serving.observability, version("rag-assets"))
        try:
            await runtime.start()
            yield
        finally:
            await runtime.stop()
            end_tracing()

    app = FastAPI(
        title="rag-assets",
        version=version("rag-assets"),
        summary="Search and cited answers from an index that is kept fresh, complete, correct and measured.",
        lifespan=lifespan,
        docs_url=None,  # their pages load scripts from other hosts; /openapi.json is there for any viewer
        redoc_url=None,
        # FastAPI's own spans hold paths and query strings; the middleware's and those of the stages hold neither.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.runtime = runtime
    for router in (search.router, chat.router, documents.router, answers.router, health.router, page_routes()):
        app.include_router(router)
    _handle_errors(app)
    serving = config.serving
    if serving.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(serving.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-Request-Id"],
            expose_headers=["X-Request-Id", "Retry-After"],
        )
    app.add_middleware(
        EdgeMiddleware,
        metrics=runtime.metrics,
        body_bytes=serving.limits.body_bytes,
        local_only=runtime.authenticator.is_open,
    )
    return app


def _handle_errors(app: FastAPI) -> None:
    """Say every error in the one shape; what clients sent is not said back."""

    @app.exception_handler(ApiError)
    async def refused(_request: Request, error: ApiError) -> JSONResponse:
        return JSONResponse(error.body(), status_code=error.status, headers=error.all_headers())

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
        return await refused(request, ApiError(422, "malformed", first["msg"], param=place or None))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        code = str(error.detail).lower().replace(" ", "_")
        headers = dict(error.headers or {})
        return await refused(request, ApiError(error.status_code, code, str(error.detail), headers=headers))

    @app.exception_handler(TransientError)
    async def passing(request: Request, _error: TransientError) -> JSONResponse:
        return await refused(request, index_unavailable(_RETRY_S))

    @app.exception_handler(PermanentError)
    async def broken(request: Request, error: PermanentError) -> JSONResponse:
        # The reason may name documents and addresses: the log is where it belongs.
        _LOGGER.error("the index cannot be searched: %s", error)
        message = "the index cannot be searched; the service's log has the reason"
        return await refused(request, ApiError(503, "index_broken", message, retry_after_s=_BROKEN_S))
