"""`rag exporter`, as it is typed."""

import socket
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rag_assets.cli.app import app
from rag_core.errors import ConfigError


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rag.yaml"
    path.write_text(f"store: {{root: {tmp_path}/store}}\nsources: [{{name: wiki, kind: files, root: {tmp_path}}}]\n")
    monkeypatch.setenv("RAG_CONFIG", str(path))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["exporter", *arguments])


def test_a_store_without_anything_is_no_error() -> None:
    done = run("--once", "--no-runs")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert 'rag_documents{source="wiki",status="ok"} 0.0' in lines
    assert 'rag_exporter_group_up{group="index"} 1.0' in lines
    assert not any(line.startswith("rag_runs") or "_created" in line for line in lines)


def test_a_part_that_cannot_be_read_is_said_and_the_others_are_there(tmp_path: Path) -> None:
    (tmp_path / "store" / "work").mkdir(parents=True)
    (tmp_path / "store" / "work" / "alerts.json").write_text("{")
    done = run("--once", "--no-runs")
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert 'rag_exporter_group_up{group="alerts"} 0.0' in lines
    assert 'rag_exporter_group_up{group="freshness"} 1.0' in lines


def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port} .*--port"):
            CliRunner().invoke(app, ["exporter", "--no-runs", "--port", str(port)], catch_exceptions=False)
