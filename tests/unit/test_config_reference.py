"""The committed reference page says what the types say."""

from rag_core import config_reference
from rag_core.config import RagConfig
from rag_core.config_keys import SOURCE_KINDS, keys_of


def test_committed_page_is_current() -> None:
    assert config_reference.main(["--check"]) == 0


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
    assert [row.split("|")[1].strip() for row in rows] == ["`api_key`", "`token`"]
    assert all("environment only" in row for row in rows)


def test_check_tells_a_stale_page(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(config_reference, "PAGE", tmp_path / "page.md")
    assert config_reference.main(["--check"]) == 1
    assert "not current" in capsys.readouterr().err
    assert config_reference.main([]) == 0
    assert config_reference.main(["--check"]) == 0
