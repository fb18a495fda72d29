"""Dashboards are current, whole, and ask for nothing that is not there."""

import re
from typing import Any

import pytest

from deploy.monitoring.build.__main__ import main
from tests.unit.monitoring.known_metrics import OTHERS, TARGET, dashboards, own_metrics, panels, queries, recorded
from tests.unit.monitoring.promql import filled, labels_of, metrics_of

EVERY = pytest.mark.parametrize(("place", "panel"), [(f"{name}: {one['title']}", one) for name, one in panels()])


def test_files_and_tables_are_what_the_code_makes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().err


def test_there_are_the_five_that_were_promised() -> None:
    assert set(dashboards()) == {
        f"rag-{name}.json" for name in ("freshness", "ingestion", "embedding", "index", "serving")
    }
    for page in dashboards().values():
        names = [one["name"] for one in page["templating"]["list"]]
        assert names[:2] == ["datasource", "instance"]
        assert page["description"]


@EVERY
def test_each_panel_says_what_it_means_and_in_which_unit(place: str, panel: dict[str, Any]) -> None:
    assert len(panel["description"]) > 15, place
    assert panel["fieldConfig"]["defaults"]["unit"], place
    assert panel["targets"], place
    assert panel["datasource"]["uid"] == "$datasource"
    if panel["type"] == "stat":
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert {one["refId"] for one in panel["targets"]} == set("ABCDEF"[: len(panel["targets"])])


@pytest.mark.parametrize("name", dashboards())
def test_panels_lie_beside_each_other(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    ids = [panel["id"] for panel in dashboards()[name]["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in dashboards()[name]["panels"]:
        box = panel["gridPos"]
        cells = {(x, y) for x in range(box["x"], box["x"] + box["w"]) for y in range(box["y"], box["y"] + box["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize(("place", "expr"), queries())
def test_queries_name_metrics_and_labels_that_exist(place: str, expr: str) -> None:
    known = {**own_metrics(), **OTHERS}
    named = metrics_of(filled(expr))
    assert named, place
    assert named <= set(known) | set(recorded()), place
    for metric, label in labels_of(filled(expr)):
        assert metric in recorded() or label in (*known[metric], *TARGET), f"{place}: {metric} has no label {label}"
    variables = set(re.findall(r"\$(\w+)", expr))
    page = dashboards()[place.partition(":")[0]]
    assert variables <= {one["name"] for one in page["templating"]["list"]} | {"__rate_interval"}, place


def test_every_metric_of_ours_is_on_a_dashboard_or_in_a_rule() -> None:
    from tests.unit.monitoring.known_metrics import alerts

    expressions = [expr for _, expr in queries()] + list(recorded().values())
    expressions += [rule["expr"] for rule in alerts().values()]
    asked = set().union(*(metrics_of(filled(expr)) for expr in expressions))
    bases = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked}
    unused = {name for name in own_metrics() if re.sub(r"_(bucket|sum|count)$", "", name) not in bases}
    assert unused == UNUSED


UNUSED = {
    "rag_partitions",  # what sources can be chosen from
    "rag_backup_snapshots",
    "rag_verdict_info",
    # The exporter has these as well, and more of them; who scrapes the service only has these.
    "rag_source_state",
    "rag_index_age_seconds",
    "rag_index_recall_at_10",
}


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        ('sum by (le) (rate(a_bucket{job="x",i=~"b|c"}[5m])) > on (job) group_left () d:e', {"a_bucket", "d:e"}),
        ("histogram_quantile(0.99, sum(rate(a[$__rate_interval])))", {"a"}),
        ("time() - a offset 1d > 3 * 3600 and ignoring (window) b or vector(0)", {"a", "b"}),
        ("count(a unless on (c) d) or absent(up)", {"a", "d", "up"}),
    ],
)  # fmt: skip
def test_names_are_read_out_of_expressions(expr: str, expected: set[str]) -> None:
    assert metrics_of(expr) == expected
