"""A real Prometheus scrapes a running service and exporter: rules and dashboards find what they ask for."""

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest

from rag_core.backup.layout import backup_store
from rag_core.backup.taking import take
from tests.integration.pipeline_helpers import Platform
from tests.integration.prometheus_server import Prometheus, needs_prometheus, running_prometheus
from tests.integration.serving_corpus import TOPICS, record, write_records
from tests.integration.serving_helpers import Served, served, wait_for
from tests.unit.monitoring.known_metrics import alerts, own_metrics, queries, recorded
from tests.unit.monitoring.promql import filled, metrics_of

pytestmark = [pytest.mark.milvus, pytest.mark.slow, needs_prometheus]

_RATES = "5m"
"""In place of Grafana's interval: longer than Prometheus runs."""


SETTINGS = {"access": {"metrics_public": True}}


@contextmanager
def exporting(platform: Platform) -> Iterator[str]:
    """Run `rag exporter`; give its host and port."""
    environment = platform.environment(RAG_MONITORING__REFRESH_S="1", RAG_MONITORING__STALE_AFTER_S="60")
    command = [sys.executable, "-m", "rag_assets.cli", "exporter", "--port", "0"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        found = re.search(r"http://([0-9.:]+)/metrics", line)
        assert found, f"{line}{process.stderr.read()}"
        yield found[1]
    finally:
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=60)[1]
        assert process.returncode == 0, rest


@contextmanager
def asking(service: Served) -> Iterator[None]:
    """Search again and again, as a rate needs requests between scrapes; every other time what is cached."""
    ended = threading.Event()

    def search() -> None:
        for number in count():
            if ended.wait(0.3):
                return
            service.found(f"Who signs raises of {number // 2} percent?")

    thread = threading.Thread(target=search, name="asking")
    thread.start()
    try:
        yield
        assert thread.is_alive(), "a search failed"
    finally:
        ended.set()
        thread.join(60)


@dataclass
class Watched:
    """Prometheus, and what it watches."""

    prometheus: Prometheus
    service: Served
    platform: Platform


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A store that is indexed, changed and searched while Prometheus looks."""
    root = tmp_path_factory.mktemp("watched")
    records = root / "topics.jsonl"
    write_records(records, [record(topic) for topic in TOPICS])
    source = {"name": "topics", "kind": "jsonl", "root": str(records), "modified_at_field": "changed"}
    platform = Platform(root / "platform", [source], {"buckets": 1, "backup": {"to": str(root / "backup")}})
    platform.run()
    take(platform.store, backup_store(platform.store, str(root / "backup")), now=datetime.now(UTC))
    try:
        with (
            exporting(platform) as exporter,
            served(platform, SETTINGS) as service,
            running_prometheus(
                root, {"rag-serving": service.url.removeprefix("http://"), "rag-exporter": exporter}
            ) as prometheus,
        ):
            wait_for(lambda: len(prometheus.query("rag_exporter_group_up == 1")) == 10)
            write_records(records, [record(topic, f"{text} See also: roof.") for topic, text in TOPICS.items()])
            platform.run()
            service.ask("How quickly must a security incident be reported?")
            with asking(service):
                # scrapes that lie behind all of it
                wait_for(lambda: prometheus.query("increase(rag_embedding_tokens_total[5m]) > 0"))
                wait_for(lambda: prometheus.query("increase(rag_answers_total[5m]) >= 0"))
                yield Watched(prometheus, service, platform)
    finally:
        platform.stop()


def test_both_are_up_and_every_metric_that_is_declared_is_there(watched: Watched) -> None:
    up = {one["metric"]["job"]: one["value"][1] for one in watched.prometheus.query("up")}
    assert up == {"rag-serving": "1", "rag-exporter": "1"}
    scraped = set(watched.prometheus.get("label/__name__/values"))
    missing = {name for name in own_metrics() if name not in scraped}
    assert missing == NOT_HERE


NOT_HERE = {
    # no sensor has looked
    "rag_source_last_look_timestamp_seconds",
    # nobody failed
    "rag_alert_channel_failures",
    "rag_milvus_errors_total",
    "http_requests_rejected_total",
    # no language model, no feedback, no GPU, no labelled queries
    "rag_answer_sentences_total",
    "rag_feedback_total",
    "rag_llm_tokens_total",
    "rag_embedding_last_job_peak_memory_ratio",
    "rag_relevance_ndcg_at_10_floor",
}


def test_every_rule_is_healthy_and_says_what_it_means(watched: Watched) -> None:
    wait_for(lambda: all(rule["health"] != "unknown" for rule in rules(watched)))
    assert {rule["name"] for rule in rules(watched)} == set(alerts()) | set(recorded())
    for rule in rules(watched):
        assert rule["health"] == "ok", f"{rule['name']}: {rule.get('lastError')}"
        for one in rule.get("alerts", []):
            said = " ".join(one["annotations"].values())
            assert "error" not in said, said
            assert "<no value>" not in said, said


def rules(watched: Watched) -> list[dict]:
    return [rule for group in watched.prometheus.get("rules")["groups"] for rule in group["rules"]]


def test_nothing_is_wrong_with_a_platform_that_is_well(watched: Watched) -> None:
    firing = {one["metric"]["alertname"] for one in watched.prometheus.query('ALERTS{alertstate="firing"}')}
    assert firing == {"RagWatchdog"}


@pytest.mark.parametrize("name", sorted(recorded()))
def test_recording_rules_give_numbers(watched: Watched, name: str) -> None:
    if "DCGM" in name:
        assert watched.prometheus.query(name) == []
        return
    wait_for(lambda: any(one["value"][1] != "NaN" for one in watched.prometheus.query(name)), 60)


@pytest.mark.parametrize("name", sorted(alerts()))
def test_alerts_ask_for_what_is_there(watched: Watched, name: str) -> None:
    """The expression itself finds nothing, since nothing is wrong; each metric in it does."""
    watched.prometheus.query(alerts()[name]["expr"])
    for metric in metrics_of(alerts()[name]["expr"]):
        if metric in own_metrics() and metric not in NOT_HERE:
            assert watched.prometheus.query(metric), f"{name}: {metric}"


@pytest.mark.parametrize(("place", "expr"), queries())
def test_panels_show_data(watched: Watched, place: str, expr: str) -> None:
    found = watched.prometheus.query(filled(expr, _RATES))
    asked = metrics_of(filled(expr))
    is_ours = all(name in own_metrics() or name.startswith(("up", "process_")) for name in asked)
    if is_ours and not asked & NOT_HERE and not place.startswith(EMPTY):
        assert found, f"{place}: {expr}"


EMPTY = (
    # shown only where something is wrong, or a candidate is there
    "rag-ingestion.json: Open alerts by kind",
    "rag-index.json: Blocked by",
    "rag-index.json: ANN recall@10 of a candidate",
    # no language model
    "rag-serving.json: Its first word",
)


def test_targets_that_do_not_answer_are_told_of(tmp_path: Path) -> None:
    """Seen at the next scrape; `for` is what keeps the alert pending."""
    with running_prometheus(tmp_path, {"rag-serving": "127.0.0.1:9", "rag-exporter": "127.0.0.1:9"}) as prometheus:
        pending = 'ALERTS{alertstate="pending",alertname=~"Rag(Service|Exporter)Down"}'
        wait_for(lambda: len(prometheus.query(pending)) == 2)
