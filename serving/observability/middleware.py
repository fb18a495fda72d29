"""What happens around every request: ID, headers, limit of the body, metrics, access log, trace."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Final

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.access.loopback import names_loopback
from serving.errors import ApiError
from serving.observability.exchange import BodyTooLargeError, Exchange
from serving.observability.metrics import Metrics
from serving.observability.request_ids import REQUEST_ID

_ACCESS: Final = logging.getLogger("rag.http")
_PROBES: Final = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked every few seconds by machines: not traced, and logged for debugging only."""
_SEARCH: Final = "/v1/search"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
_ABANDONED: Final = 499
"""The client went away before the answer was complete. No status of HTTP; nginx made it common."""


class EdgeMiddleware:
    """The outermost of the app's own layers; pure ASGI, so that streams pass through as they are.

    Metrics and the log name routes by their template and never by what was asked: paths hold IDs, and query strings and
    bodies hold texts.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, body_bytes: int, local_only: bool = False) -> None:
        """Put it around an app.

        Args:
            app: What answers.
            metrics: Counts requests and times them.
            body_bytes: Largest body of a request.
            local_only: Whether requests for other host names than those of loopback are refused. A service that lets
                everybody in needs it: a web page can make a browser call 127.0.0.1 by a name of its own, and then read
                the answers (DNS rebinding).
        """
        self._app = app
        self._metrics = metrics
        self._body_bytes = body_bytes
        self._local_only = local_only
        self._tracer = trace.get_tracer("rag.serving")
        self._traceparent = TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send, body_bytes=self._body_bytes)
        scope["state"] = {**scope.get("state", {}), "request_id": exchange.request_id}
        token = REQUEST_ID.set(exchange.request_id)
        try:
            with self._observed(scope, exchange):
                await self._answer(scope, exchange)
        finally:
            REQUEST_ID.reset(token)

    async def _answer(self, scope: Scope, exchange: Exchange) -> None:
        """Let the app answer, and answer instead where it must not or cannot."""
        if exchange.is_too_large:
            await exchange.refuse(exchange.too_large())
            return
        if self._local_only and not names_loopback(exchange.headers.get("host", "")):
            message = "without API keys this service answers to localhost only"
            await exchange.refuse(ApiError(421, "unknown_host", message))
            return
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except BodyTooLargeError:
            if not exchange.status:
                await exchange.refuse(exchange.too_large())
        except Exception:
            if exchange.is_abandoned:
                return  # whatever failed, nobody waits for it
            _ACCESS.exception("a request failed unexpectedly")
            if exchange.status:
                raise  # the server breaks the connection: a cut-off answer must not look complete
            message = f"an unexpected error; the service's log has it under request {exchange.request_id}"
            await exchange.refuse(ApiError(500, "internal_error", message))

    @contextmanager
    def _observed(self, scope: Scope, exchange: Exchange) -> Iterator[None]:
        """Time a request to the last byte of its answer, trace it, and tell of it."""
        began = perf_counter()
        with self._span(scope, exchange) as span:
            try:
                yield
            finally:
                method = scope["method"] if scope["method"] in _METHODS else "OTHER"
                route = _route(scope)
                status = _outcome(exchange)
                seconds = perf_counter() - began
                self._metrics.requests.labels(route, method, str(status)).inc()
                self._metrics.request_seconds.labels(route).observe(seconds)
                if route == _SEARCH and status < 400:  # a refusal is quick, and would make searches look so
                    self._metrics.search_latency_seconds.observe(seconds)
                _name(span, method, route, status)
                _log(scope, method, route, status, seconds)

    @contextmanager
    def _span(self, scope: Scope, exchange: Exchange) -> Iterator[Span]:
        if scope["path"] in _PROBES:
            yield trace.INVALID_SPAN
            return
        carrier = {name: exchange.headers[name] for name in ("traceparent", "tracestate") if name in exchange.headers}
        with self._tracer.start_as_current_span(
            "request",
            context=self._traceparent.extract(carrier),
            kind=SpanKind.SERVER,
            attributes={"rag.request_id": exchange.request_id},
            record_exception=False,  # messages of exceptions may hold texts
            set_status_on_exception=False,
        ) as span:
            yield span


def _route(scope: Scope) -> str:
    """Return the template of the route, such as `/v1/documents/{doc_id}`: there are few, whatever is asked for."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) and path else "unmatched"


def _outcome(exchange: Exchange) -> int:
    """Return the status to tell: that of the answer, unless the client did not get all of it."""
    if exchange.is_abandoned:
        return _ABANDONED
    return exchange.status if exchange.finished else 500


def _name(span: Span, method: str, route: str, status: int) -> None:
    """Say on a span what it was; names and attributes are those of OpenTelemetry's HTTP conventions."""
    span.update_name(f"{method} {route}")
    span.set_attributes({"http.request.method": method, "http.route": route, "http.response.status_code": status})
    if status >= 500:
        span.set_status(StatusCode.ERROR)


def _log(scope: Scope, method: str, route: str, status: int, seconds: float) -> None:
    level = logging.WARNING if status >= 500 else logging.DEBUG if scope["path"] in _PROBES else logging.INFO
    fields = {
        "method": method,
        "route": route,
        "status": status,
        "seconds": round(seconds, 6),
        "caller": scope["state"].get("caller"),
    }
    _ACCESS.log(level, "request", extra=fields)
