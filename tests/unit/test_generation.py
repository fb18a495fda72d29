"""What a manifest says of a generation makes the same one again, and says nothing secret."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from rag_core.config import EmbeddingConfig, FilesSource, RagConfig, StoreConfig
from rag_core.generation import changed_settings, configured, restored

SECRET = "key-that-must-not-be-kept"

_CHUNKING = st.fixed_dictionaries(
    {"strategy": st.sampled_from(["markdown", "fixed", "recursive"]), "max_tokens": st.integers(16, 120)}
)
_LOCAL = st.fixed_dictionaries(
    {"max_tokens": st.sampled_from([None, 128, 200]), "query_prefix": st.sampled_from([None, "q: "])}
)
_REMOTE = st.fixed_dictionaries(
    {
        "backend": st.just("openai"),
        "model": st.sampled_from(["m", "n"]),
        "revision": st.sampled_from([None, "2"]),
        "base_url": st.just("http://127.0.0.1:9/v1"),
        "dim": st.integers(1, 9),
    }
)
_INDEX = st.fixed_dictionaries(
    {"index_type": st.sampled_from(["FLAT", "HNSW"]), "metric": st.sampled_from(["COSINE", "IP"])}
)


def config_of(**sections: Any) -> RagConfig:
    source = FilesSource(kind="files", name="notes", root=Path("/nowhere"))
    return RagConfig.model_validate({"store": StoreConfig(root="/nowhere"), "sources": (source,), **sections})


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(chunking=_CHUNKING, embedding=_LOCAL | _REMOTE, index=_INDEX, other=_LOCAL | _REMOTE)
def test_a_generation_is_restored_whatever_rag_yaml_asks_for(
    chunking: dict[str, Any], embedding: dict[str, Any], index: dict[str, Any], other: dict[str, Any]
) -> None:
    secret = {"api_key": SecretStr(SECRET)}
    made = configured(config_of(chunking=chunking, embedding={**embedding, **secret}, index=index))
    assert SECRET not in made.settings
    later = config_of(embedding={**other, **secret, "batch_tokens": 512}, index={"write_batch": 7})
    again = restored(later, made.collection, made.settings)
    assert (again.chunk_lane, again.embedding_lane) == (made.chunk_lane, made.embedding_lane)
    assert (again.spec.fingerprint, again.collection) == (made.spec.fingerprint, made.collection)
    assert again.settings == made.settings
    assert not again.follows_settings
    # What does not make a generation follows rag.yaml, the key among it.
    assert again.config.embedding.api_key == SecretStr(SECRET)
    assert (again.config.embedding.batch_tokens, again.config.index.write_batch) == (512, 7)


@pytest.mark.parametrize(
    ("changed", "shares_chunks", "shares_vectors"),
    [
        ({"embedding": {"max_tokens": 128}}, True, False),
        ({"embedding": {"passage_prefix": "passage: "}}, True, False),
        ({"index": {"index_type": "HNSW"}}, True, True),
        ({"chunking": {"max_tokens": 80}}, False, False),
    ],
    ids=["length", "prefix", "index", "chunking"],
)
def test_generations_share_what_they_have_in_common(
    changed: dict[str, Any], shares_chunks: bool, shares_vectors: bool
) -> None:
    base: dict[str, Any] = {"chunking": {"max_tokens": 100}}
    old, new = configured(config_of(**base)), configured(config_of(**base | changed))
    assert old.collection != new.collection
    assert (old.chunk_lane == new.chunk_lane) is shares_chunks
    assert (old.embedding_lane == new.embedding_lane) is shares_vectors
    section, values = next(iter(changed.items()))
    (key, value), before = next(iter(values.items())), changed_settings(old, new)
    assert before[0].startswith(f"{section}.{key} ")
    assert before[0].endswith(f"-> {json.dumps(value)}")


@pytest.mark.parametrize(
    "section", [{"index": {"search_params": {"ef": 99}}}, {"embedding": {"batch_tokens": 512}}, {"buckets": 3}]
)
def test_settings_that_change_no_row_make_no_other_collection(section: dict[str, Any]) -> None:
    if "index" in section:
        base: dict[str, Any] = {"index": {"index_type": "HNSW"}}
        section = {"index": {**base["index"], **section["index"]}}
    else:
        base = {}
    assert configured(config_of(**base)).collection == configured(config_of(**base | section)).collection


def test_every_setting_of_a_generation_exists() -> None:
    kept = json.loads(configured(config_of()).settings)
    assert set(kept["embedding"]) < set(EmbeddingConfig.model_fields)
    assert "api_key" not in kept["embedding"]
    assert set(kept) == {"chunking", "embedding", "index", "chunk_lane", "embedding_lane"}
