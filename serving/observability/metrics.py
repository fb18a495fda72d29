"""The service's Prometheus metrics, by their names; one object for each app, so that two never share a registry."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Final, get_args

from opentelemetry import trace
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from serving.answers.llm_errors import Reason

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SEARCH_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5, 2.5, 5.0, 10.0)
"""Close together around half a second, which is what a search is held to: a quantile is no finer than its buckets."""
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """All metrics. Labels never hold a question, a document or a caller."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.requests = Counter(
            "http_requests", "Requests, by route, method and status.", ["route", "method", "status"], registry=r
        )
        self.request_seconds = Histogram(
            "http_request_duration_seconds", "Time to the last byte.", ["route"], buckets=_SECONDS, registry=r
        )
        self.in_flight = Gauge("http_requests_in_flight", "Requests that are worked on.", registry=r)
        self.in_flight_limit = Gauge("http_requests_in_flight_limit", "Most that are worked on at once.", registry=r)
        self.waiting = Gauge("http_requests_waiting", "Requests that wait for their turn.", registry=r)
        self.rejected = Counter(
            "http_requests_rejected", "Requests that were sent away, by reason.", ["reason"], registry=r
        )
        self.search_latency_seconds = Histogram(
            "search_latency_seconds", "Time of a search as its HTTP caller sees it, cached or not; refusals left out.",
            buckets=_SEARCH_SECONDS, registry=r,
        )  # fmt: skip
        self.stage_seconds = Histogram(
            "rag_search_stage_duration_seconds",
            "Time of a stage of a search or an answer: embed, dense, bm25, fetch, neighbours, rerank, llm, verify.",
            ["stage"], buckets=_SECONDS, registry=r,
        )  # fmt: skip
        self.search_seconds = Histogram(
            "rag_search_duration_seconds", "Time of a search that no cache answered.", ["mode"],
            buckets=_SECONDS, registry=r,
        )  # fmt: skip
        self.batch_size = Histogram(
            "rag_batch_size", "Questions embedded, or searched for, in one go.", ["stage"], buckets=_SIZES, registry=r
        )
        self.cache = Counter(
            "rag_cache_requests", "Look-ups: hit, miss, stale, shared (another request was at it), error.",
            ["cache", "outcome"], registry=r,
        )  # fmt: skip
        self.milvus_errors = Counter("rag_milvus_errors", "Requests to Milvus that failed.", ["kind"], registry=r)
        self.breaker_open = Gauge("rag_milvus_breaker_open", "1 while Milvus is left alone.", registry=r)
        self.index_info = Gauge(
            "rag_index_info", "1 for what is served.", ["collection", "version", "model"], registry=r
        )
        self.index_age_seconds = Gauge("rag_index_age_seconds", "Time since the publication.", registry=r)
        self.index_chunks = Gauge("rag_index_chunks", "Chunks that are served.", registry=r)
        self.index_recall = Gauge(
            "rag_index_recall_at_10", "ANN recall@10 of what is served, as last measured.", registry=r
        )
        self.switches = Counter("rag_index_switches", "Publications that were taken up.", ["outcome"], registry=r)
        self.source_age_seconds = Gauge(
            "rag_source_data_age_seconds", "Age of the oldest change of a source that is not searchable yet.",
            ["source"], registry=r,
        )  # fmt: skip
        self.source_state = Gauge(
            "rag_source_state", "1 for the state of a source's freshness objective.", ["source", "state"], registry=r
        )
        self.answers = Counter("rag_answers", "Answers, by kind and by why they are degraded.", ["kind", "degraded"],
                               registry=r)  # fmt: skip
        self.sentences = Counter("rag_answer_sentences", "Sentences: supported, marked, dropped.", ["outcome"],
                                 registry=r)  # fmt: skip
        self.llm_tokens = Counter("rag_llm_tokens", "Tokens of the language model.", ["kind"], registry=r)
        self.llm_errors = Counter("rag_llm_errors", "Requests to the language model that failed.", ["kind"], registry=r)
        self.first_token_seconds = Histogram(
            "rag_llm_first_token_seconds", "Time to its first word.", buckets=_SECONDS, registry=r
        )
        self.feedback = Counter("rag_feedback", "Thumbs.", ["rating"], registry=r)
        ProcessCollector(registry=r)
        # An alert on an increase sees none from nothing to 1.
        self.cache.labels("redis", "error")
        self.switches.labels("failed")
        for reason in get_args(Reason):
            self.llm_errors.labels(reason)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage of a search or an answer, as a metric and as a span of the current trace."""
        began = perf_counter()
        # Messages of exceptions may hold texts, so a span says only that there was one.
        with trace.get_tracer("rag.serving").start_as_current_span(
            f"rag.{name}", record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            except Exception:
                span.set_status(trace.StatusCode.ERROR)
                raise
            finally:
                self.stage_seconds.labels(name).observe(perf_counter() - began)
