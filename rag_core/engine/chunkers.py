"""The chunker of each source, made once per process from the configuration and the embedding model's tokenizer."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rag_core.chunking.chunker import Chunker, make_chunker
from rag_core.config import ChunkingConfig, EmbeddingConfig, RagConfig
from rag_core.embedding.model import resolve_model
from rag_core.errors import ConfigError

if TYPE_CHECKING:
    from rag_core.embedding.encoder import Encoder

_CACHE: dict[tuple[str, str], Chunker] = {}


def chunker_of(config: RagConfig, source_name: str) -> Chunker:
    """Return the chunker of a source.

    Raises:
        ConfigError: The chunks would be larger than what the embedding model reads.
    """
    return _chunker(config, config.chunking_of(config.source(source_name)), f"source {source_name}")


def chunker_fingerprints(config: RagConfig) -> dict[str, str]:
    """Return the chunker fingerprint of each source."""
    return {source.name: chunker_of(config, source.name).fingerprint for source in config.sources}


def default_chunker_fingerprint(config: RagConfig) -> str:
    """Return the fingerprint of the chunker of sources that have no chunking of their own."""
    return _chunker(config, config.chunking, "the configuration").fingerprint


def _chunker(config: RagConfig, chunking: ChunkingConfig, whose: str) -> Chunker:
    key = (chunking.model_dump_json(), config.embedding.model_dump_json())
    if key not in _CACHE:
        spec = resolve_model(config.embedding)
        if chunking.max_tokens > spec.max_content_tokens:
            raise ConfigError(
                f"chunking.max_tokens of {whose} is {chunking.max_tokens}, but model {spec.name} reads "
                f"{spec.max_content_tokens} tokens beside its special tokens and prefix; expected at most that"
            )
        _CACHE[key] = make_chunker(
            chunking,
            Path(spec.tokenizer_path),
            embed_sentences=lambda texts: _embed(config, list(texts)),
            model_fingerprint=spec.fingerprint,
        )
    return _CACHE[key]


@lru_cache(maxsize=1)
def _encoder(embedding_json: str) -> "Encoder":
    from rag_core.embedding.encoder import make_encoder

    return make_encoder(EmbeddingConfig.model_validate_json(embedding_json))


def _embed(config: RagConfig, sentences: list[str]) -> np.ndarray:
    """Embed sentences for the semantic strategy; the model is loaded at the first call."""
    return _encoder(config.embedding.model_dump_json(exclude={"api_key"})).embed(sentences, "passage")
