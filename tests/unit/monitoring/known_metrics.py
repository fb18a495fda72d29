"""Dashboards, rules, and every metric that they may name."""

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from deploy.monitoring.build.metrics import Described, exporter_metrics, service_metrics
from tests.conftest import REPO

MONITORING: Final = REPO / "deploy" / "monitoring"

OTHERS: Final = {
    "up": (),
    "ALERTS": ("alertname", "alertstate", "severity"),
    "process_resident_memory_bytes": (),
    "process_cpu_seconds_total": (),
    # NVIDIA's dcgm-exporter, etc/default-counters.csv
    "DCGM_FI_DEV_FB_USED": ("gpu", "UUID", "Hostname", "modelName"),
    "DCGM_FI_DEV_FB_FREE": ("gpu", "UUID", "Hostname", "modelName"),
    "DCGM_FI_DEV_GPU_UTIL": ("gpu", "UUID", "Hostname", "modelName"),
    # https://milvus.io/docs/metrics_dashboard.md
    "milvus_proxy_sq_latency_bucket": ("le", "query_type", "node_id"),
    "redis_up": (),  # oliver006/redis_exporter
    "pg_up": (),  # prometheus-community/postgres_exporter
}
"""Metrics of other programs, with their labels."""

TARGET: Final = ("job", "instance")
"""Labels that Prometheus adds."""


@cache
def rule_groups() -> list[dict[str, Any]]:
    files = sorted((MONITORING / "rules").glob("*.yml"))
    return [group for path in files for group in yaml.safe_load(path.read_text())["groups"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for group in rule_groups() for rule in group["rules"] if "alert" in rule}


def recorded() -> dict[str, str]:
    return {rule["record"]: rule["expr"] for group in rule_groups() for rule in group["rules"] if "record" in rule}


@cache
def dashboards() -> dict[str, dict[str, Any]]:
    return {path.name: json.loads(path.read_text()) for path in sorted((MONITORING / "dashboards").glob("*.json"))}


def panels() -> list[tuple[str, dict[str, Any]]]:
    """Return (dashboard, panel) of every panel that shows something."""
    return [(name, one) for name, page in dashboards().items() for one in page["panels"] if one["type"] != "row"]


def queries() -> list[tuple[str, str]]:
    """Return (place, expression) of every query of every dashboard."""
    return [
        (f"{name}: {panel['title']} {target['refId']}", target["expr"])
        for name, panel in panels()
        for target in panel["targets"]
    ]


@cache
def own_metrics() -> dict[str, tuple[str, ...]]:
    """Return the series of exporter and service by name, with their labels."""
    described = [one for listed in exporter_metrics().values() for one in listed] + service_metrics()
    return {name: labels for one in described for name, labels in _series(one)}


def _series(one: Described) -> list[tuple[str, tuple[str, ...]]]:
    if one.type != "histogram":
        return [(one.name, one.labels)]
    return [(f"{one.name}_bucket", (*one.labels, "le"))] + [
        (f"{one.name}_{end}", one.labels) for end in ("sum", "count")
    ]


def page_anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = [line.lstrip("#").strip() for line in page.read_text().splitlines() if line.startswith("#")]
    kept = ["".join(sign for sign in one.lower() if sign.isalnum() or sign in " -_") for one in headings]
    return {one.replace(" ", "-") for one in kept}
