"""Traces: sent by OTLP over HTTP beside the requests, which never wait for a collector."""

from collections.abc import Callable
from threading import Thread
from typing import Final

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from rag_core.config_serving import ObservabilityConfig

_SERVICE: Final = "rag-serving"
_EXPORT_S: Final = 5.0
"""Time limit of sending a batch; spans that a dead collector does not take are dropped."""
_END_S: Final = 5.0


def setup_tracing(config: ObservabilityConfig, version: str) -> Callable[[], None]:
    """Begin to send traces, if there is somewhere to send them.

    OpenTelemetry has one provider for a process, which cannot be replaced: call it once.

    Args:
        config: Where to send them, and of which share of requests; what a caller's `traceparent` says goes first.
        version: Version of the service.

    Returns:
        What sends the rest and ends it; takes a few seconds at most.
    """
    if config.otlp_endpoint is None:
        return _nothing
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(config.trace_share)),
        resource=Resource.create({"service.name": _SERVICE, "service.version": version}),
    )
    exporter = OTLPSpanExporter(endpoint=f"{config.otlp_endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_S)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)

    def end() -> None:
        # The provider waits for a dead collector once for each batch that is left.
        ending = Thread(target=provider.shutdown, name="end-tracing", daemon=True)
        ending.start()
        ending.join(_END_S)

    return end


def _nothing() -> None:
    pass
