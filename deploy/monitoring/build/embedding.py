"""The dashboard of embedding efficiency: tokens a second, padding, reuse, memory, and the GPU itself."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.monitoring.build.panels import GOOD, PIPELINE, Limit, Panels, Query, Row, graph, number, page


def embedding() -> Dashboard:
    """Make it."""
    return page(
        "rag-embedding",
        "RAG: embedding efficiency",
        "How well the embedding worker uses its device. Padding is computed for nothing, reused texts not at all.",
        [Row("Last job", _last_job()), Row("Over time", _over_time()), Row("GPU", _gpu())],
        instances='rag_partitions{job="rag-exporter"}',
        with_sources=False,
    )


def _last_job() -> Panels:
    return [
        number(
            "Tokens a second", "Inside the model, padding not counted.", "short",
            Query(f"rag_embedding_last_job_tokens_per_second{{{PIPELINE}}}", "tokens/s"),
        ),
        number(
            "Padding", "Share of the computed tokens. High: texts of very different lengths in a batch.", "percentunit",
            Query(f"rag_embedding_last_job_padding_ratio{{{PIPELINE}}}", "padding"),
            limits=(GOOD, Limit(0.1, "yellow"), Limit(0.25, "red")),
        ),
        number(
            "Reuse", "Share of the job's texts that the vector cache had when it started.", "percentunit",
            Query(f"rag_embedding_last_job_reuse_ratio{{{PIPELINE}}}", "reused"), limits=(Limit(None, "blue"),),
        ),
        number(
            "Peak memory", "Of the worker: host is resident, gpu what its process had reserved.", "bytes",
            Query(f"rag_embedding_last_job_peak_memory_bytes{{{PIPELINE}}}", "{{memory}}"),
            limits=(Limit(None, "blue"),),
        ),
        number(
            "Device", "Device and precision of the last job.", "short",
            Query(f"rag_embedding_last_job_info{{{PIPELINE}}}", "{{device}} {{precision}}"), shows_name=True,
            limits=(Limit(None, "blue"),),
        ),
        number(
            "Since the last job", "A long time is no harm where nothing changed.", "s",
            Query(f"time() - rag_embedding_last_job_timestamp_seconds{{{PIPELINE}}}", "ago"),
            limits=(Limit(None, "blue"),),
        ),
    ]  # fmt: skip


def _over_time() -> Panels:
    def rate(name: str) -> str:
        return f"sum(rate({name}{{{PIPELINE}}}[$__rate_interval]))"

    return [
        graph(
            "Tokens a second of model time", "Falls with shorter texts, more padding, a busy device.", "short",
            Query(f"instance:rag_embedding_tokens:per_second_rate15m{{{PIPELINE}}}", "{{instance}}"),
        ),
        graph(
            "Padding", "Share of the computed tokens, over 15 minutes.", "percentunit",
            Query(f"instance:rag_embedding_padding:ratio_rate15m{{{PIPELINE}}}", "{{instance}}"),
            limits=(Limit(0.25, "red"),),
        ),
        graph(
            "Reuse", "Share of texts that needed no model, over an hour.", "percentunit",
            Query(f"instance:rag_embedding_reuse:ratio_rate1h{{{PIPELINE}}}", "{{instance}}"),
        ),
        graph(
            "Texts", "Embedded, and taken from the vector cache, a second.", "ops",
            Query(
                f"sum by (outcome) (rate(rag_embedding_texts_total{{{PIPELINE}}}[$__rate_interval]))", "{{outcome}}"
            ),
            stacked=True,
        ),
        graph(
            "Share of the time inside the model", "1 is a device that never waits for the pipeline.", "percentunit",
            Query(rate("rag_embedding_seconds_total"), "busy"),
        ),
        graph(
            "Batches, halvings, retries", "Halved batches did not fit into memory; retries are an endpoint's.", "ops",
            Query(rate("rag_embedding_batches_total"), "batches"),
            Query(rate("rag_embedding_oom_halvings_total"), "halved"),
            Query(rate("rag_embedding_retries_total"), "retried"),
        ),
        graph(
            "Jobs that wait for a worker", "Steps that wait in the pool `embedding`, and its places.", "short",
            Query(f'rag_pool_steps_waiting{{{PIPELINE},pool="embedding"}}', "waiting"),
            Query(f'rag_pool_slots{{{PIPELINE},pool="embedding"}}', "places"), width=12,
        ),
        graph(
            "Peak memory of jobs", "Of each job's worker.", "bytes",
            Query(f"rag_embedding_last_job_peak_memory_bytes{{{PIPELINE}}}", "{{memory}}"), width=12,
        ),
    ]  # fmt: skip


def _gpu() -> Panels:
    return [
        graph(
            "GPU memory", "Of each GPU, as NVIDIA's dcgm-exporter says; above 80 % somebody is told.", "percentunit",
            Query("gpu:DCGM_FI_DEV_FB:used_ratio", "{{Hostname}} GPU {{gpu}}"), limits=(Limit(0.8, "red"),),
        ),
        graph(
            "GPU busy", "Share of time in which a kernel ran.", "percent",
            Query("DCGM_FI_DEV_GPU_UTIL", "{{Hostname}} GPU {{gpu}}"),
        ),
        graph(
            "GPU memory by the worker's report", "Peak of the last job, as a share of what the GPU has.", "percentunit",
            Query(f"rag_embedding_last_job_peak_memory_ratio{{{PIPELINE}}}", "{{memory}}"),
            limits=(Limit(0.8, "red"),),
        ),
    ]  # fmt: skip
