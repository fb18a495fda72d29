"""What rag.yaml says of access: nested secrets are refused, the file of keys is found beside rag.yaml."""

from pathlib import Path

import pytest

from rag_core.config_loader import load_config
from rag_core.errors import ConfigError

SMALLEST = "store: {root: ./data}\nsources: [{name: handbook, kind: files, root: corpus}]\n"


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    (tmp_path / "corpus").mkdir()
    return tmp_path / "rag.yaml"


def test_the_file_of_keys_is_relative_to_the_configuration(config_file: Path) -> None:
    config_file.write_text(SMALLEST + "serving: {access: {keys_file: keys.yaml, metrics_public: true}}\n")
    access = load_config(config_file, {}).config.serving.access
    assert access.keys_file == config_file.parent / "keys.yaml"
    assert access.metrics_public


def test_nested_secrets_come_from_the_environment_only(config_file: Path) -> None:
    config_file.write_text(SMALLEST + "serving: {access: {keys: '[]'}, llm: {model: m, api_key: k}}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(config_file, {})
    assert str(caught.value).count("is a secret") == 2
    assert "RAG_SERVING__ACCESS__KEYS" in str(caught.value)
    config_file.write_text(SMALLEST + "serving: {access: {metrics_public: true}, llm: {model: m}}\n")
    serving = load_config(config_file, {"RAG_SERVING__ACCESS__KEYS": "[]"}).config.serving
    assert serving.access.keys is not None
    assert serving.access.keys.get_secret_value() == "[]"
    assert (serving.access.metrics_public, serving.llm.model) == (True, "m")
