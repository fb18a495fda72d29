"""The digest moves with everything that a zygote has read, and with nothing else."""

import os
from pathlib import Path

import pytest

from rag_assets.launcher.digest import code_digest


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    (tmp_path / "checks").mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "rag.yaml").write_text(
        "store: {root: ./data}\nsources: [{name: docs, kind: files, root: docs}]\nquality: {tests: checks}\n"
    )
    (tmp_path / "located.py").write_text("defs = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return {"RAG_CONFIG": str(tmp_path / "rag.yaml"), "PATH": "/bin"}


def test_it_moves_with_what_is_read_at_the_start(env: dict[str, str], tmp_path: Path) -> None:
    seen = [code_digest("located", env)]
    assert code_digest("located", {**env, "PATH": "/elsewhere"}) == seen[0]

    def moved() -> bool:
        seen.append(code_digest("located", env))
        return seen[-1] not in seen[:-1]

    (tmp_path / "located.py").write_text("defs = 22\n")
    assert moved()
    with (tmp_path / "rag.yaml").open("a") as file:
        file.write("buckets: 4\n")
    assert moved()
    (tmp_path / "checks" / "chunks.yml").write_text("table: chunks\n")
    assert moved()
    os.utime(tmp_path / "checks" / "chunks.yml", ns=(1, 1))
    assert moved()
    (tmp_path / "docs" / "a.yml").write_text("a document, not a setting")
    assert not moved()
    (tmp_path / ".env").write_text("RAG_BUCKETS=2\n")
    assert moved()
    env["RAG_BUCKETS"] = "3"
    (tmp_path / ".env").unlink()
    assert moved()


def test_a_configuration_that_is_wrong_has_a_digest(env: dict[str, str], tmp_path: Path) -> None:
    before = code_digest("located", env)
    (tmp_path / "rag.yaml").write_text("sources: nothing\n")
    assert code_digest("located", env) != before
    assert code_digest("no_such_module", env)
