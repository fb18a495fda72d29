"""Traces arrive at a collector as they should be, and a collector that is not there is not missed."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from rag_core.config_serving import ObservabilityConfig
from serving.observability.tracing import setup_tracing

REPO = Path(__file__).resolve().parents[3]
STATUSES = "[200, 200, 200, 500, 200]"


@contextmanager
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """Run a collector; yield its address and what it received."""
    received: list[ExportTraceServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/v1/traces":
                received.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def run(endpoint: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.unit.serving.traced_program", endpoint]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=120, check=True)


def attributes(of: Any) -> dict[str, Any]:
    return {one.key: one.value.string_value or one.value.int_value for one in of.attributes}


@pytest.mark.slow
def test_spans_arrive_with_their_parents_and_names() -> None:
    with collector() as (endpoint, received):
        assert run(endpoint).stdout.strip() == STATUSES
    resources = [resource for request in received for resource in request.resource_spans]
    named = attributes(resources[0].resource)
    assert (named["service.name"], named["service.version"]) == ("rag-serving", "1.2.3")
    spans = [span for resource in resources for scope in resource.scope_spans for span in scope.spans]
    by_request = {attributes(span).get("rag.request_id"): span for span in spans}
    outer = by_request["r1"]
    assert outer.name == "GET /v1/things/{thing_id}"
    assert outer.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert outer.parent_span_id.hex() == "b7ad6b7169203331"
    assert attributes(outer) == {
        "http.request.method": "GET",
        "http.route": "/v1/things/{thing_id}",
        "http.response.status_code": 200,
        "rag.request_id": "r1",
    }
    inner = {span.name: span for span in spans if span.trace_id == outer.trace_id and span is not outer}
    assert set(inner) == {"rag.embed", "rag.dense"}
    assert inner["rag.embed"].parent_span_id == outer.span_id
    assert inner["rag.dense"].parent_span_id == inner["rag.embed"].span_id
    assert "1af7651916cd43dd8448eb211c80319c" not in {span.trace_id.hex() for span in spans}  # as its caller decided
    assert not by_request["r3"].parent_span_id  # a traceparent that is none begins a trace
    failed = [span for span in spans if span.status.code == span.status.STATUS_CODE_ERROR]
    assert {span.name for span in failed} == {"GET /v1/broken", "rag.fetch"}
    assert len(spans) == 8  # and none of /healthz
    assert "secret" not in str(received)


@pytest.mark.slow
def test_a_collector_that_is_not_there_disturbs_nothing() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{probe.getsockname()[1]}"
    assert run(closed).stdout.strip() == STATUSES


def test_without_an_address_nothing_is_set_up() -> None:
    before = trace.get_tracer_provider()
    setup_tracing(ObservabilityConfig(), "1.2.3")()
    assert trace.get_tracer_provider() is before
