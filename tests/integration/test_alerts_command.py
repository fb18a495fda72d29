"""`rag alerts` prints what is open and what was told, and says which channels work."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rag_assets.cli.app import app
from rag_core.alerts.book import AlertBook
from rag_core.tables.store import Store
from tests.alert_support import DOWN, NOW, Recorder, finding


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    (tmp_path / "docs").mkdir()
    rag_yaml = "store: {root: data}\nsources: [{name: wiki, kind: files, root: docs}]\n"
    (tmp_path / "rag.yaml").write_text(rag_yaml, encoding="utf-8")
    monkeypatch.setenv("RAG_CONFIG", str(tmp_path / "rag.yaml"))
    return Store(str(tmp_path / "data"))


def rag(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["alerts", *arguments])
    return done.exit_code, done.output


def test_nothing_is_open_and_nothing_was_told(store: Store) -> None:
    assert rag() == (0, "no open alerts\n")
    assert rag("--history", "5") == (0, "nothing was told yet\n")
    assert rag("--json") == (0, "")


def test_what_is_open_what_waits_and_what_was_told(store: Store) -> None:
    book, channel = AlertBook(store, repeat_s=3_600), Recorder("webhook")
    channel.failure = DOWN
    book.update([finding("failed_run/a"), finding("index_dirt/b", severity="critical", title="[bold] rows")], NOW)
    book.deliver([channel], NOW)
    for seconds in (60, 121):
        book.update(
            [finding("index_dirt/b", severity="critical", title="[bold] rows")], NOW + timedelta(seconds=seconds)
        )
    book.write_history()
    code, shown = rag()
    assert code == 0
    assert shown.startswith("critical: [bold] rows, since 2026-11-25 12:00:00 UTC\n")
    assert shown.endswith("3 messages wait for delivery (webhook: recorder is down)\n")
    assert "failed_run" not in shown
    assert [json.loads(line)["alert_key"] for line in rag("--json")[1].splitlines()] == ["index_dirt/b"]
    told = [json.loads(line) for line in rag("--history", "2", "--json")[1].splitlines()]
    assert [(one["alert_key"], one["state"]) for one in told] == [
        ("failed_run/a", "resolved"),
        ("failed_run/a", "firing"),
    ]
    assert "resolved" in rag("--history", "3")[1]


def test_a_test_message_goes_through_every_channel(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rag("test")[0] == 0
    monkeypatch.setenv("RAG_ALERTS__WEBHOOK__URL", "http://127.0.0.1:9/secret-of-the-hook")
    code, shown = rag("test", "--json")
    assert code == 1
    assert [(one["channel"], one["delivered"]) for one in json.loads(shown)] == [("log", True), ("webhook", False)]
    assert "secret-of-the-hook" not in shown
