"""Generations: an index as a whole, made with one model, one default chunking and one kind of index.

A changed setting makes another generation with a collection of its own (blue/green): it is built beside the served
one, which takes the documents' changes until the new one is published. What both need in common is kept once: rows of
`chunks` and `embeddings` lie in lanes named by what made them, so a new model with the same tokenizer shares the
chunks, and another index type shares chunks and vectors.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from rag_core import ids
from rag_core.config import ChunkingConfig, EmbeddingConfig, IndexConfig, RagConfig
from rag_core.embedding.model import ModelSpec, resolve_model
from rag_core.engine.chunkers import default_chunker_fingerprint
from rag_core.index import schema

# What makes two generations different; the rest of a section (addresses, time limits, batch sizes) follows rag.yaml.
_EMBEDDING: Final = (
    "backend", "model", "revision", "dim", "max_tokens", "tokenizer", "query_prefix", "passage_prefix", "base_url",
)  # fmt: skip
_INDEX: Final = ("index_type", "metric", "build_params", "search_params", "lexical")
# Kept only where they are not the default: manifests from before there was a choice say nothing of them.
_INDEX_LATER: Final = ("vector_type", "shards")
_LANE_CHARS: Final = 12


@dataclass(frozen=True)
class Generation:
    """One index: its settings, and where its rows are.

    Attributes:
        config: rag.yaml with the chunking, model and index of this generation.
        spec: Its model.
        collection: Its Milvus collection, and the lane of `index_partitions`.
        chunk_lane: Its lane of `chunks`.
        embedding_lane: Its lane of `embeddings`.
        follows_settings: Whether settings of chunking apply to documents that did not change. False for a generation
            that rag.yaml no longer asks for: only the documents' own changes reach it.
    """

    config: RagConfig
    spec: ModelSpec
    collection: str
    chunk_lane: str
    embedding_lane: str
    follows_settings: bool = True

    @property
    def settings(self) -> str:
        """What `restored` needs to make this generation again, as JSON; holds no secret."""
        embedding = self.config.embedding.model_dump(mode="json", include=set(_EMBEDDING))
        index = self.config.index.model_dump(mode="json", include={*_INDEX, *_INDEX_LATER})
        for name in _INDEX_LATER:
            if index[name] == IndexConfig.model_fields[name].default:
                del index[name]
        chunking = self.config.chunking.model_dump(mode="json")
        lanes = {"chunk_lane": self.chunk_lane, "embedding_lane": self.embedding_lane}
        return json.dumps({"chunking": chunking, "embedding": embedding, "index": index, **lanes}, sort_keys=True)


def index_of(now: IndexConfig, kept: Mapping[str, Any]) -> IndexConfig:
    """Return the `index` section with what a manifest has of it, and its connection as it is now."""
    return IndexConfig(**{**now.model_dump(exclude={*_INDEX, *_INDEX_LATER}), **kept})


def changed_settings(old: Generation, new: Generation) -> list[str]:
    """List the settings in which two generations differ, such as `embedding.max_tokens 256 -> 200`."""
    before, after = json.loads(old.settings), json.loads(new.settings)
    found = []
    for section in ("chunking", "embedding", "index"):
        for key in sorted({**before[section], **after[section]}):
            was, now = before[section].get(key), after[section].get(key)
            if was != now and key != "search_params":
                found.append(f"{section}.{key} {json.dumps(was)} -> {json.dumps(now)}")
    return found or ["the program's own version of chunking, model handling or index schema"]


def configured(config: RagConfig) -> Generation:
    """Return the generation that rag.yaml asks for.

    A source's own chunking is not part of it: it changes that source's rows in place and must not rebuild the others.

    Raises:
        ConfigError: The model or its tokenizer is not there, or reads fewer tokens than a chunk has.
    """
    spec = resolve_model(config.embedding)
    chunk_lane = default_chunker_fingerprint(config)
    identity = schema.index_fingerprint(
        config.index, dim=spec.dim, model_fingerprint=spec.fingerprint, chunker_fingerprint=chunk_lane
    )
    return Generation(
        config=config,
        spec=spec,
        collection=schema.collection_name(config.index.alias, identity),
        chunk_lane=chunk_lane[:_LANE_CHARS],
        embedding_lane=ids.fingerprint({"chunks": chunk_lane, "model": spec.fingerprint})[:_LANE_CHARS],
    )


def restored(config: RagConfig, collection: str, settings: str) -> Generation:
    """Return the generation of a collection from what the manifest says of it.

    Raises:
        ConfigError: Its model is no longer there.
    """
    kept: dict[str, Any] = json.loads(settings)
    old = config.model_copy(
        update={
            "chunking": ChunkingConfig(**kept["chunking"]),
            "embedding": EmbeddingConfig(**{**config.embedding.model_dump(), **kept["embedding"]}),
            # Settings that a manifest does not have were the defaults when it was written.
            "index": index_of(config.index, kept["index"]),
        }
    )
    return Generation(
        config=old,
        spec=resolve_model(old.embedding),
        collection=collection,
        chunk_lane=kept["chunk_lane"],
        embedding_lane=kept["embedding_lane"],
        follows_settings=False,
    )
