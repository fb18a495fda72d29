"""Alert rules: checked and tested by promtool, complete, and each with a run book."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import REPO
from tests.unit.monitoring.known_metrics import (
    MONITORING,
    OTHERS,
    TARGET,
    alerts,
    own_metrics,
    page_anchors,
    recorded,
)
from tests.unit.monitoring.promql import labels_of, metrics_of

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is absent")
TESTS = sorted((MONITORING / "tests").glob("*.yml"))
PAGE = REPO / "docs" / "monitoring.md"
EXPRESSIONS = [*((name, rule["expr"]) for name, rule in alerts().items()), *recorded().items()]


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=120, check=False)


@needs_promtool
def test_configuration_and_rules_are_valid() -> None:
    done = promtool("check", "config", str(MONITORING / "prometheus.yml"))
    assert done.returncode == 0, done.stdout + done.stderr
    rules = [str(path) for path in sorted((MONITORING / "rules").glob("*.yml"))]
    done = promtool("check", "rules", *rules)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@needs_promtool
@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_not_before(path: Path) -> None:
    done = promtool("test", "rules", str(path))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@needs_promtool
def test_such_a_test_can_fail(tmp_path: Path) -> None:
    text = (MONITORING / "rules" / "serving.yml").read_text()
    (tmp_path / "rules").mkdir()
    (tmp_path / "tests").mkdir()
    shutil.copy(MONITORING / "rules" / "recording.yml", tmp_path / "rules")
    shutil.copy(MONITORING / "tests" / "serving.yml", tmp_path / "tests")
    (tmp_path / "rules" / "serving.yml").write_text(text.replace("p99_rate5m > 0.5", "p99_rate5m > 5"))
    assert promtool("test", "rules", str(tmp_path / "tests" / "serving.yml")).returncode == 1


def cases() -> list[dict[str, Any]]:
    return [case for path in TESTS for case in yaml.safe_load(path.read_text())["tests"]]


@pytest.mark.slow
@pytest.mark.parametrize("name", alerts())
def test_each_alert_has_tests_of_both_kinds(name: str) -> None:
    own = [case for case in cases() if case["name"].startswith(f"{name}:")]
    if name == "RagWatchdog":
        return  # always fires, in each test of its file
    fired = [
        any(f'"{name}"' in sample["labels"] for sample in one["exp_samples"])
        for case in own
        for one in case["promql_expr_test"]
    ]
    assert True in fired, f"no test in which {name} fires"
    assert False in fired, f"no test in which {name} does not fire"


@pytest.mark.parametrize("name", alerts())
def test_each_alert_says_what_is_wrong_and_where_to_read_on(name: str) -> None:
    rule = alerts()[name]
    assert re.fullmatch(r"Rag[A-Z][A-Za-z0-9]+", name)
    assert rule["labels"]["severity"] in {"critical", "warning", "none"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert REPO / page == PAGE
    assert anchor == name.lower()
    assert anchor in page_anchors(PAGE)


def test_each_run_book_has_an_alert() -> None:
    written = set(re.findall(r"^### (Rag\w+)$", PAGE.read_text(), re.MULTILINE))
    assert written == set(alerts())


def test_links_of_the_page_lead_somewhere() -> None:
    for page, anchor in re.findall(r"\]\(([a-z.-]*\.md)?(?:#([a-z0-9_-]+))?\)", PAGE.read_text()):
        target = PAGE.parent / page if page else PAGE
        assert target.is_file(), page
        assert not anchor or anchor in page_anchors(target), f"{page}#{anchor}"


@pytest.mark.parametrize(("name", "expr"), EXPRESSIONS)
def test_rules_name_metrics_and_labels_that_exist(name: str, expr: str) -> None:
    known = {**own_metrics(), **OTHERS}
    assert metrics_of(expr) - set(recorded()) <= set(known), name
    for metric, label in labels_of(expr):
        assert metric in recorded() or label in (*known[metric], *TARGET), f"{name}: {metric} has no label {label}"


def test_recorded_names_say_level_metric_and_operation() -> None:
    assert all(len(name.split(":")) == 3 for name in recorded())
