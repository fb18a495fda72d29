"""The committed reference page says what the types say."""

import re
from pathlib import Path

from rag_core import config_reference
from rag_core.config import RagConfig
from rag_core.config_keys import SOURCE_KINDS, keys_of
from rag_core.config_loader import load_config

REPO = Path(__file__).resolve().parents[2]


def test_committed_page_is_current() -> None:
    assert config_reference.main(["--check"]) == 0


def test_examples_of_the_page_are_valid(tmp_path: Path) -> None:
    examples = re.findall(r"```yaml\n(.*?)```", config_reference.reference(), re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        (tmp_path / "rag.yaml").write_text(example, encoding="utf-8")
        assert load_config(tmp_path / "rag.yaml", {}, check_files=False).config.sources


def test_environment_template_is_accepted_as_it_is() -> None:
    lines = (REPO / ".env.example").read_text(encoding="utf-8").splitlines()
    env = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    assert "RAG_INDEX__TOKEN" in env
    assert load_config(REPO / "rag.yaml", env, check_files=False).path == REPO / "rag.yaml"


def test_every_key_has_a_row_and_a_description() -> None:
    page = config_reference.reference()
    keys = list(keys_of(RagConfig))
    for section in SOURCE_KINDS.values():
        keys += [key for key in keys_of(section, ("sources", "NAME")) if key.path[-1] != "kind"]
    for key in keys:
        if key.path != ("sources",):
            assert f"`{key.env_name}`" in page, key
        assert key.field.description, key


def test_secrets_are_marked() -> None:
    rows = [line for line in config_reference.reference().splitlines() if "secret text" in line]
    names = ["api_key", "token", "webhook.url", "email.password", "access.keys", "cache.redis_url", "llm.api_key"]
    assert [row.split("|")[1].strip() for row in rows] == [f"`{name}`" for name in names]
    assert all("only from RAG_" in row or "environment only" in row for row in rows)


def test_check_tells_a_stale_page(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(config_reference, "PAGE", tmp_path / "page.md")
    assert config_reference.main(["--check"]) == 1
    assert "not current" in capsys.readouterr().err
    assert config_reference.main([]) == 0
    assert config_reference.main(["--check"]) == 0
