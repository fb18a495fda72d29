"""Vectors for many callers: those that the model gives to each text alone, and no text twice."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
import pytest

from rag_core.config import EmbeddingConfig
from rag_core.config_serving import RetrievalConfig
from rag_core.embedding.encoder import make_encoder
from rag_core.errors import TransientError
from rag_core.retrieval.served import ServedIndex
from serving.observability.metrics import Metrics
from serving.retrieval.embedding import QueryEmbedder

pytestmark = pytest.mark.anyio

TEXTS = [
    "valve",
    "How do I reset the gauge of the second pump?",
    "the garden is open at noon, and dogs are welcome on Fridays " * 12,
    "Wie lange ist das Tor offen?",
    "E1234",
    "boundary layer behind a slender wing",
]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


class Encoder:
    """Gives each text a vector of its own by its length; remembers its batches."""

    def __init__(self, scale: float = 1.0) -> None:
        self.batches: list[tuple[str, list[str]]] = []
        self.error: Exception | None = None
        self._scale = scale

    def embed(self, texts: list[str], kind: Literal["query", "passage"]) -> np.ndarray:
        self.batches.append((kind, list(texts)))
        if self.error:
            raise self.error
        angles = np.array([self._scale * len(text) for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


@dataclass
class Manifest:
    dim: int = 2


@dataclass
class Index:
    """What the embedder reads of a served index."""

    encoder: Any = field(default_factory=Encoder)
    model_fingerprint: str = "model"
    collection: str = "rag_blue"
    manifest: Manifest = field(default_factory=Manifest)

    @property
    def as_served(self) -> ServedIndex:
        return cast(ServedIndex, self)


@asynccontextmanager
async def embedder(**settings: Any) -> AsyncIterator[QueryEmbedder]:
    made = QueryEmbedder(RetrievalConfig(**settings), Metrics())
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture(scope="module")
def minilm() -> Iterator[Index]:
    # In half precision a vector depends, in its last digits, on what else is in the batch.
    encoder = make_encoder(EmbeddingConfig(precision="fp32", device="cpu"))
    yield Index(encoder, encoder.spec.fingerprint, manifest=Manifest(encoder.spec.dim))


@pytest.mark.slow
async def test_together_as_alone(minilm: Index) -> None:
    alone = np.stack([minilm.encoder.embed([text], "query")[0] for text in TEXTS])
    async with embedder() as made:
        once = await made.embed(minilm.as_served, TEXTS, "query")
        again = await made.embed(minilm.as_served, TEXTS[::-1], "query")
    assert once.shape == alone.shape
    assert once.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(once, axis=1), 1, atol=1e-5)
    assert ((once * alone).sum(axis=1) > 0.9999).all()
    assert (np.abs(once @ once.T - np.eye(len(TEXTS))) < 0.9).all(), "else any order would do"
    assert (again[::-1] == once).all(), "from memory, to the bit"


async def test_a_question_that_was_asked_is_not_embedded_again() -> None:
    index = Index()
    async with embedder() as made:
        first = await made.embed(index.as_served, ["a", "bb"], "query")
        second = await made.embed(index.as_served, ["bb", "a", "ccc"], "query")
    assert (second[:2] == first[::-1]).all()
    assert [text for _, batch in index.encoder.batches for text in batch] == ["a", "bb", "ccc"]


async def test_who_changes_a_vector_changes_it_for_nobody_else() -> None:
    index = Index()
    async with embedder() as made:
        first = await made.embed(index.as_served, ["a"], "query")
        first[:] = 0
        assert np.linalg.norm(await made.embed(index.as_served, ["a"], "query")) == pytest.approx(1)


async def test_another_model_embeds_for_itself() -> None:
    blue, green = Index(), Index(Encoder(scale=2.0), "other", "rag_green")
    async with embedder() as made:
        (one,) = await made.embed(blue.as_served, ["a"], "query")
        (other,) = await made.embed(green.as_served, ["a"], "query")
        assert not np.allclose(one, other)
        # The same model for another collection: its vectors hold.
        same = Index(collection="rag_green")
        assert (await made.embed(same.as_served, ["a"], "query") == one).all()
        assert not same.encoder.batches


async def test_models_asked_at_the_same_time_are_not_mixed() -> None:
    blue, green = Index(), Index(Encoder(scale=2.0), "other", "rag_green")
    texts = ["x" * length for length in range(1, 20)]
    async with embedder(batch=4) as made:
        one, other = await asyncio.gather(
            made.embed(blue.as_served, texts, "query"), made.embed(green.as_served, texts, "query")
        )
    np.testing.assert_allclose(one, Encoder().embed(texts, "query"))
    np.testing.assert_allclose(other, Encoder(scale=2.0).embed(texts, "query"))
    assert max(len(batch) for _, batch in blue.encoder.batches + green.encoder.batches) <= 4


async def test_passages_are_of_their_kind_and_not_kept() -> None:
    index = Index()
    async with embedder() as made:
        await made.embed(index.as_served, ["a"], "query")
        await made.embed(index.as_served, ["a"], "passage")
        await made.embed(index.as_served, ["a"], "passage")
    assert index.encoder.batches == [("query", ["a"]), ("passage", ["a"]), ("passage", ["a"])]


async def test_only_so_many_are_kept() -> None:
    index = Index()
    async with embedder(query_cache=2) as made:
        for text in ("a", "bb", "ccc", "ccc", "a"):
            await made.embed(index.as_served, [text], "query")
    assert [batch for _, batch in index.encoder.batches] == [["a"], ["bb"], ["ccc"], ["a"]]


async def test_none_is_kept() -> None:
    index = Index()
    async with embedder(query_cache=0) as made:
        for _ in range(2):
            await made.embed(index.as_served, ["a"], "query")
    assert len(index.encoder.batches) == 2


async def test_no_texts() -> None:
    async with embedder() as made:
        assert (await made.embed(Index().as_served, [], "query")).shape == (0, 2)


async def test_a_failure_is_not_remembered() -> None:
    index = Index()
    async with embedder() as made:
        index.encoder.error = TransientError("out of memory")
        with pytest.raises(TransientError):
            await made.embed(index.as_served, ["a"], "query")
        index.encoder.error = None
        assert (await made.embed(index.as_served, ["a"], "query")).shape == (1, 2)


@pytest.mark.parametrize("error", [None, TransientError("out of memory")])
async def test_no_text_is_logged(error: Exception | None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    index = Index()
    index.encoder.error = error
    async with embedder() as made:
        results: Sequence[Any] = await asyncio.gather(
            *(made.embed(index.as_served, ["the secret merger"], kind) for kind in ("query", "passage")),
            return_exceptions=True,
        )
    assert [isinstance(one, TransientError) for one in results] == [error is not None] * 2
    assert "merger" not in caplog.text
