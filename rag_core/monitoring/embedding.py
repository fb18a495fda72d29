"""How well the embedding worker uses its device, from the reports that it leaves in commits of `embeddings`."""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from rag_core.monitoring.commits import Commit, NewCommits
from rag_core.monitoring.group import begin_at_zero, replace_all
from rag_core.tables.store import Store

_LOOKED_BACK: Final = 50  # commits in which the last report is looked for when the exporter starts
_UNKNOWN: Final = "unknown"


class EmbeddingMetrics:
    """Tokens, padding, reuse and memory: of the last job as gauges, of all since the exporter started as counters."""

    name = "embedding"

    def __init__(self, store: Store) -> None:
        """Name the store; nothing is read yet."""
        self._commits = NewCommits(store, "embeddings", at_first=_LOOKED_BACK)
        self.registry = r = CollectorRegistry()
        self._texts = Counter(
            "rag_embedding_texts", "Texts that a model embedded, or that the vector cache had: embedded, reused.",
            ["outcome"], registry=r,
        )  # fmt: skip
        begin_at_zero(self._texts, [("embedded",), ("reused",)])
        self._tokens = Counter("rag_embedding_tokens", "Tokens that were embedded, padding not counted.", registry=r)
        self._padded = Counter("rag_embedding_padded_tokens", "Tokens that were computed; with padding.", registry=r)
        self._seconds = Counter("rag_embedding_seconds", "Time inside the model.", registry=r)
        self._batches = Counter("rag_embedding_batches", "Batches, or requests of an endpoint.", registry=r)
        self._halvings = Counter(
            "rag_embedding_oom_halvings", "Batches that did not fit into memory and were halved.", registry=r
        )
        self._retries = Counter("rag_embedding_retries", "Requests of an endpoint that were repeated.", registry=r)
        self._rate = Gauge("rag_embedding_last_job_tokens_per_second", "Tokens a second of the last job.", registry=r)
        self._padding = Gauge(
            "rag_embedding_last_job_padding_ratio", "Share of its computed tokens that were padding.", registry=r
        )
        self._reuse = Gauge(
            "rag_embedding_last_job_reuse_ratio", "Share of its texts that were in the vector cache when it started.",
            registry=r,
        )  # fmt: skip
        self._at = Gauge("rag_embedding_last_job_timestamp_seconds", "When it was committed.", registry=r)
        self._info = Gauge(
            "rag_embedding_last_job_info", "1 for device and precision of the last job.", ["device", "precision"],
            registry=r,
        )  # fmt: skip
        self._memory = Gauge(
            "rag_embedding_last_job_peak_memory_bytes", "Peak memory of its worker; missing where it was not measured: "
            "host (resident), gpu (allocated).", ["memory"], registry=r,
        )  # fmt: skip
        self._memory_ratio = Gauge(
            "rag_embedding_last_job_peak_memory_ratio", "The same, as a share of what the device has.", ["memory"],
            registry=r,
        )  # fmt: skip
        for gauge in (self._rate, self._padding, self._reuse, self._at):
            gauge.set(math.nan)  # 0 would say that there was a job, and how bad it was

    def update(self, now: datetime) -> None:
        """Add up what was committed since the last time, and show the last job."""
        commits, is_first = self._commits.read()
        reported = [commit for commit in commits if commit.worker]
        if not is_first:  # counters begin at 0
            for commit in commits:
                self._texts.labels("embedded").inc(commit.totals.get("embedded", 0))
                self._texts.labels("reused").inc(commit.totals.get("reused", 0))
            for commit in reported:
                self._add(commit.worker)
        if reported:
            self._show(reported[-1])

    def _add(self, report: Mapping[str, Any]) -> None:
        counters = {
            "tokens": self._tokens,
            "padded_tokens": self._padded,
            "seconds": self._seconds,
            "batches": self._batches,
            "oom_halvings": self._halvings,
            "retries": self._retries,
        }
        for name, counter in counters.items():
            counter.inc(float(report.get(name) or 0))

    def _show(self, commit: Commit) -> None:
        report = commit.worker
        self._at.set(commit.at_s)
        self._rate.set(float(report.get("tokens_per_s") or 0))
        self._padding.set(float(report.get("padding_share") or 0))
        self._reuse.set(float(report.get("reuse_share") or 0))
        # an endpoint's address is no label: it may change with each pod, and hold names
        device = str(report.get("device", _UNKNOWN)).partition(":")[0]
        device = device if device in {"cpu", "cuda", "mps"} else "endpoint" if device != _UNKNOWN else device
        replace_all(self._info, {(device, str(report.get("precision", _UNKNOWN))): 1.0})
        peak, total = report.get("peak_gpu_bytes"), report.get("gpu_total_bytes")
        peaks = {"host": report.get("peak_rss_bytes"), "gpu": peak}
        replace_all(self._memory, {(name,): float(value) for name, value in peaks.items() if value})
        replace_all(self._memory_ratio, {("gpu",): peak / total} if peak and total else {})
