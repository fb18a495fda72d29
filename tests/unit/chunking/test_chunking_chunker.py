"""From configuration to a chunker; the semantic strategy's boundaries."""

from pathlib import Path

import numpy as np
import pytest

from rag_core.chunking.chunker import make_chunker
from rag_core.chunking.semantic import adjacent_distances
from rag_core.config import ChunkingConfig
from rag_core.errors import ConfigError


def by_topic(sentences: list[str]) -> np.ndarray:
    """Embed sentences about ships apart from those about bread."""
    return np.array([[1, 0.1] if "ship" in sentence else [0.1, 1] for sentence in sentences], dtype=np.float32)


def test_semantic_cuts_where_the_topic_changes() -> None:
    ships, bread = "The ship sails over the sea today. " * 10, "Bread is baked from flour and water. " * 10
    config = ChunkingConfig(strategy="semantic", max_tokens=254, semantic_percentile=80)
    first, second, third = make_chunker(config, embed_sentences=by_topic).split(ships + bread + ships)
    assert (first.text, second.text, third.text) == (ships.strip(), bread.strip(), ships.strip())


def test_semantic_needs_an_embedder() -> None:
    with pytest.raises(ConfigError, match="semantic"):
        make_chunker(ChunkingConfig(strategy="semantic"))


def test_distances_of_vectors_of_any_length() -> None:
    vectors = np.array([[1, 0], [5, 0], [0, 2], [0, 0], [0, -1]], dtype=np.float32)
    assert adjacent_distances(vectors) == pytest.approx([0, 1, 1, 1])


def test_the_models_limit_wins() -> None:
    text = "The quick brown fox jumps over the lazy dog. " * 20
    chunker = make_chunker(ChunkingConfig(max_tokens=254, overlap_tokens=100), model_tokens=40)
    assert max(chunk.token_count for chunk in chunker.split(text)) <= 40
    assert chunker.limits.overlap_tokens == 20


@pytest.mark.slow
def test_fingerprints_tell_chunkers_apart(tokenizer_paths: dict[str, Path]) -> None:
    prints = {
        make_chunker(ChunkingConfig()).fingerprint,
        make_chunker(ChunkingConfig(max_tokens=128)).fingerprint,
        make_chunker(ChunkingConfig(overlap_tokens=16)).fingerprint,
        make_chunker(ChunkingConfig(strategy="fixed")).fingerprint,
        make_chunker(ChunkingConfig(), tokenizer_paths["bpe"]).fingerprint,
        make_chunker(ChunkingConfig(strategy="semantic"), embed_sentences=by_topic).fingerprint,
        make_chunker(ChunkingConfig(strategy="semantic"), embed_sentences=by_topic, model_fingerprint="m").fingerprint,
    }
    assert len(prints) == 7
    assert make_chunker(ChunkingConfig()).fingerprint in prints
    assert make_chunker(ChunkingConfig(semantic_percentile=50)).fingerprint in prints  # not used by markdown
