"""`rag slo`, as it is typed."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rag_assets.cli.app import app
from rag_core.errors import ConfigError
from rag_core.tables.log import append_rows
from rag_core.tables.store import Store
from tests.freshness_facts import START, change, passed


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    store, now = Store(str(tmp_path / "store")), (datetime.now(UTC) - START).total_seconds()
    changes = [change(number, now - 100 - number) for number in range(12)]
    append_rows(store, "source_changes", [*changes, change(99, now - 50, object_key="new.md", kind="new")])
    append_rows(store, "passes", [passed(now - 100, now - 90)])
    path = tmp_path / "rag.yaml"
    path.write_text(
        f"store: {{root: {store.root}}}\n"
        "sources:\n"
        f"  - {{name: handbook, kind: files, root: {tmp_path}, objective: {{target: 0.9, within_s: 20}}}}\n"
        f"  - {{name: wiki, kind: files, root: {tmp_path}}}\n"
    )
    monkeypatch.setenv("RAG_CONFIG", str(path))
    monkeypatch.setenv("COLUMNS", "120")
    return str(path)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["slo", *arguments], catch_exceptions=False)


def test_a_table_for_each_source(config: str) -> None:
    lines = " ".join(run().stdout.split())  # a narrow console wraps them
    assert "handbook: exhausted" in lines
    assert "promised 90 % of changes within 20 s, over 30 days; nothing waits for more than 60 min" in lines
    assert "attained 84.62 % of 13 changes, 2 late" in lines
    assert "2 of 13 changes in 30 days were not searchable within 20 s; 90 % are promised to be" in lines
    assert "wiki: ok" in lines
    assert "attained – of 0 changes, none late" in lines


def test_changes_are_listed_the_worst_first(config: str) -> None:
    lines = [" ".join(line.split()) for line in run("--source", "handbook", "--changes", "2").stdout.splitlines()]
    assert any(line.startswith("21 s changed 11.md handbook__00") for line in lines)
    assert any(" new new.md handbook__00" in line for line in lines)
    assert not any("wiki" in line for line in lines)


def test_json_has_all_that_is_known(config: str) -> None:
    (source,) = json.loads(run("--json", "--source", "handbook", "--changes", "1").stdout)["sources"]
    assert (source["state"], source["counted"], source["bad"], source["pending"]) == ("exhausted", 13, 2, 1)
    assert source["budget_left"] == pytest.approx(1 - 2 / 1.3)
    assert [row["object_key"] for row in source["slowest"] + source["waiting"]] == ["11.md", "new.md"]
    assert source["oldest_pending"]["object_key"] == "new.md"


def test_an_unknown_source_is_named(config: str) -> None:
    with pytest.raises(ConfigError, match="no source nobody; expected one of handbook, wiki"):
        run("--source", "nobody")
