"""What a manifest keeps of the `index` section: nothing new where nothing new is set."""

import json
from pathlib import Path

from rag_core.config import FilesSource, RagConfig, StoreConfig
from rag_core.generation import Generation, changed_settings, configured, restored


def config_of(**index: object) -> RagConfig:
    source = FilesSource(kind="files", name="notes", root=Path("/nowhere"))
    return RagConfig.model_validate({"store": StoreConfig(root="/nowhere"), "sources": (source,), "index": index})


def made(**index: object) -> Generation:
    return configured(config_of(**index))


def test_defaults_are_not_in_the_manifest() -> None:
    kept = json.loads(made(replicas=2, mmap=True).settings)["index"]
    assert set(kept) == {"index_type", "metric", "build_params", "search_params", "lexical"}


def test_a_generation_keeps_its_vectors_and_shards_whatever_is_asked_for_later() -> None:
    half = made(vector_type="FLOAT16_VECTOR", shards=3)
    again = restored(config_of(replicas=4), half.collection, half.settings)
    assert (again.config.index.vector_type, again.config.index.shards) == ("FLOAT16_VECTOR", 3)
    assert again.config.index.replicas == 4
    plain = made()
    old = restored(config_of(vector_type="FLOAT16_VECTOR", shards=3), plain.collection, plain.settings)
    assert (old.config.index.vector_type, old.config.index.shards) == ("FLOAT_VECTOR", None)


def test_the_change_is_named() -> None:
    changes = changed_settings(made(), made(vector_type="FLOAT16_VECTOR", shards=3))
    assert changes == ["index.shards null -> 3", 'index.vector_type null -> "FLOAT16_VECTOR"']
