"""The dashboard of serving: latency, load, errors, caches, the language model, Milvus as the service sees it."""

from typing import Final

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.monitoring.build.panels import GOOD, SERVICE, Limit, Panels, Query, Row, graph, number, page

_SLOW_S: Final = 0.5  # rules/serving.yml, RagSearchSlow
_RATE: Final = "[$__rate_interval]"


def serving() -> Dashboard:
    """Make it."""
    return page(
        "rag-serving",
        "RAG: serving latency",
        "The HTTP service as its callers see it.",
        [
            Row("Now", _now()),
            Row("Latency", _latency()),
            Row("Load", _load()),
            Row("Caches and Milvus", _behind()),
            Row("Answers", _answers()),
            Row("Processes", _processes()),
        ],
        instances='http_requests_in_flight{job="rag-serving"}',
        with_sources=False,
    )


def _now() -> Panels:
    return [
        number(
            "p99 of a search", "99th percentile of five minutes over all services.", "s",
            Query('job:search_latency_seconds:p99_rate5m{job="rag-serving"}', "p99"),
            limits=(GOOD, Limit(_SLOW_S / 2, "yellow"), Limit(_SLOW_S, "red")),
        ),
        number(
            "Requests that fail", "Share of 5xx, probes left out.", "percentunit",
            Query('job:http_requests_errors:ratio_rate5m{job="rag-serving"}', "5xx"),
            limits=(GOOD, Limit(0.01, "yellow"), Limit(0.05, "red")),
        ),
        number(
            "In flight", "Requests that are worked on.", "short",
            Query(f"sum(http_requests_in_flight{{{SERVICE}}})", "requests"), limits=(Limit(None, "blue"),),
        ),
        number(
            "Services", "That can be scraped, and that cannot.", "short",
            Query(f"count(up{{{SERVICE}}} == 1) or vector(0)", "up"),
            Query(f"count(up{{{SERVICE}}} == 0) or vector(0)", "down"), limits=(Limit(None, "blue"),),
        ),
        number(
            "Milvus left alone", "Services whose breaker is open.", "short",
            Query(f"sum(rag_milvus_breaker_open{{{SERVICE}}})", "open"), limits=(GOOD, Limit(1, "red")),
        ),
        number(
            "Searches a second", "Over all services.", "reqps",
            Query('job:search_latency_seconds_count:rate5m{job="rag-serving"}', "searches"),
            limits=(Limit(None, "blue"),),
        ),
    ]  # fmt: skip


def _latency() -> Panels:
    def quantile(share: float, metric: str, label: str) -> str:
        return f"histogram_quantile({share}, sum by (le, {label}) (rate({metric}_bucket{{{SERVICE}}}{_RATE})))"

    return [
        graph(
            "Search latency", "As callers see it, cached or not; refusals are not in it.", "s",
            *(
                Query(f'job:search_latency_seconds:{name}_rate5m{{job="rag-serving"}}', name)
                for name in ("p50", "p95", "p99")
            ),
            limits=(Limit(_SLOW_S, "red"),), width=12,
        ),
        graph(
            "Searches that no cache answered", "95th percentile by mode, without waiting for a turn.", "s",
            Query(quantile(0.95, "rag_search_duration_seconds", "mode"), "{{mode}}"), limits=(Limit(_SLOW_S, "red"),),
            width=12,
        ),
        graph(
            "Stages", "95th percentile of each stage of a search or an answer.", "s",
            Query(quantile(0.95, "rag_search_stage_duration_seconds", "stage"), "{{stage}}"), width=12,
        ),
        graph(
            "Requests by route", "95th percentile to the last byte; answers of a language model are streams.", "s",
            Query(quantile(0.95, "http_request_duration_seconds", "route"), "{{route}}"), width=12,
        ),
    ]  # fmt: skip


def _load() -> Panels:
    return [
        graph(
            "Requests", "A second, by status.", "reqps",
            Query(
                f'sum by (status) (rate(http_requests_total{{{SERVICE},route!~"/healthz|/readyz|/metrics"}}{_RATE}))',
                "{{status}}",
            ),
            stacked=True,
        ),
        graph(
            "In flight and waiting", "Near the limit requests wait, and are sent away then. Scale by this.", "short",
            Query(f"http_requests_in_flight{{{SERVICE}}}", "{{instance}}"),
            Query(f"http_requests_waiting{{{SERVICE}}}", "{{instance}} waiting"),
            Query(f"max(http_requests_in_flight_limit{{{SERVICE}}})", "limit"), dashed=("limit",),
        ),
        graph(
            "Sent away", "Requests a second, by reason.", "reqps",
            Query(f"sum by (reason) (rate(http_requests_rejected_total{{{SERVICE}}}{_RATE}))", "{{reason}}"),
            stacked=True,
        ),
        graph(
            "Batches", "Mean number of questions embedded, or searched for, in one go.", "short",
            Query(
                f"sum by (stage) (rate(rag_batch_size_sum{{{SERVICE}}}{_RATE})) "
                f"/ (sum by (stage) (rate(rag_batch_size_count{{{SERVICE}}}{_RATE})) > 0)",
                "{{stage}}",
            ),
            width=12,
        ),
        graph(
            "Age of the data by source", "As the service tells its callers.", "s",
            Query(f"max by (source) (rag_source_data_age_seconds{{{SERVICE}}})"), limits=(Limit(3600, "red"),),
            width=12,
        ),
    ]  # fmt: skip


def _behind() -> Panels:
    return [
        graph(
            "Answered from a cache", "Share of look-ups that hit, or shared another request's work.", "percentunit",
            Query('job_cache:rag_cache_hits:ratio_rate5m{job="rag-serving"}', "{{cache}}"),
        ),
        graph(
            "Look-ups", "A second, by cache and outcome. `redis: error`: Redis does not answer.", "ops",
            Query(
                f"sum by (cache, outcome) (rate(rag_cache_requests_total{{{SERVICE}}}{_RATE}))",
                "{{cache}}: {{outcome}}",
            ),
        ),
        graph(
            "Milvus as the service sees it", "Requests that failed, a second, and open breakers.", "short",
            Query(f"sum by (kind) (rate(rag_milvus_errors_total{{{SERVICE}}}{_RATE}))", "{{kind}}"),
            Query(f"rag_milvus_breaker_open{{{SERVICE}}}", "{{instance}} breaker"), limits=(Limit(1, "red"),),
        ),
        graph(
            "Milvus by its own measure", "99th percentile of searches and queries at the proxy, in milliseconds.", "ms",
            Query(
                f"histogram_quantile(0.99, sum by (le, query_type) (rate(milvus_proxy_sq_latency_bucket{_RATE})))",
                "{{query_type}}",
            ),
            limits=(Limit(1_000 * _SLOW_S, "red"),), width=12,
        ),
        graph(
            "Publications taken up", "Switches to another collection or version, by outcome.", "short",
            Query(
                f"sum by (outcome) (increase(rag_index_switches_total{{{SERVICE}}}{_RATE}))", "{{outcome}}"
            ),
            width=12,
        ),
    ]  # fmt: skip


def _answers() -> Panels:
    return [
        graph(
            "Answers", "A second, by kind, and why they are degraded where they are.", "ops",
            Query(f"sum by (kind, degraded) (rate(rag_answers_total{{{SERVICE}}}{_RATE}))", "{{kind}} {{degraded}}"),
            stacked=True,
        ),
        graph(
            "Sentences", "Supported by their citations, marked as not, dropped.", "ops",
            Query(f"sum by (outcome) (rate(rag_answer_sentences_total{{{SERVICE}}}{_RATE}))", "{{outcome}}"),
            stacked=True,
        ),
        graph(
            "Feedback", "Thumbs, a second.", "ops",
            Query(f"sum by (rating) (rate(rag_feedback_total{{{SERVICE}}}{_RATE}))", "{{rating}}"),
        ),
        graph(
            "Tokens of the language model", "A second, read and written.", "ops",
            Query(f"sum by (kind) (rate(rag_llm_tokens_total{{{SERVICE}}}{_RATE}))", "{{kind}}"), stacked=True,
        ),
        graph(
            "Its first word", "95th percentile.", "s",
            Query(
                f"histogram_quantile(0.95, sum by (le) (rate(rag_llm_first_token_seconds_bucket{{{SERVICE}}}{_RATE})))",
                "p95",
            ),
            limits=(Limit(10, "red"),),
        ),
        graph(
            "Its failures", "A second, by kind; `budget`: the tokens of the day are spent.", "ops",
            Query(f"sum by (kind) (rate(rag_llm_errors_total{{{SERVICE}}}{_RATE}))", "{{kind}}"), stacked=True,
        ),
    ]  # fmt: skip


def _processes() -> Panels:
    return [
        graph(
            "Memory", "Resident, of each service.", "bytes",
            Query(f"process_resident_memory_bytes{{{SERVICE}}}", "{{instance}}"), width=12,
        ),
        graph(
            "Processor", "Cores in use, of each service.", "short",
            Query(f"rate(process_cpu_seconds_total{{{SERVICE}}}{_RATE})", "{{instance}}"), width=12,
        ),
    ]  # fmt: skip
