"""Embedding for many callers: questions in batches, and those that were asked before from memory."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
from cachetools import LRUCache

from rag_core.config_serving import RetrievalConfig
from rag_core.retrieval.served import ServedIndex
from serving.observability.metrics import Metrics
from serving.retrieval.batcher import Batcher

_PASSAGES = 16  # sentences at once: a question that comes meanwhile waits for no more than these


class QueryEmbedder:
    """Made once; for one event loop.

    An encoder is not thread-safe, so all of them run in one thread. Batches of questions and of passages take turns in
    it: verifying a long answer holds no question up for longer than one batch.
    """

    def __init__(self, settings: RetrievalConfig, metrics: Metrics) -> None:
        self._metrics = metrics
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embed")
        self._known: LRUCache[tuple[str, str], np.ndarray] = LRUCache(max(1, settings.query_cache))
        self._keeps = settings.query_cache > 0
        self._batchers: dict[str, Batcher[tuple[ServedIndex, str], np.ndarray]] = {
            "query": Batcher("embed", self._queries, most=settings.batch, at_once=1, metrics=metrics),
            "passage": Batcher("embed_passages", self._passages, most=_PASSAGES, at_once=1, metrics=metrics),
        }

    @property
    def waiting(self) -> int:
        """Questions that wait to be embedded."""
        return self._batchers["query"].waiting

    async def embed(self, index: ServedIndex, texts: Sequence[str], kind: Literal["query", "passage"]) -> np.ndarray:
        """Embed texts by the model of an index.

        Returns:
            (n, dim) float32, rows of unit length, in order.
        """
        if not texts:
            return np.zeros((0, index.manifest.dim), np.float32)
        return np.stack(await asyncio.gather(*(self._one(index, text, kind) for text in texts)))

    async def _one(self, index: ServedIndex, text: str, kind: Literal["query", "passage"]) -> np.ndarray:
        key = (index.model_fingerprint, text)
        if kind == "query" and (known := self._known.get(key)) is not None:
            return known
        vector = await self._batchers[kind].submit((index, text), (index.model_fingerprint, index.collection))
        if kind == "query" and self._keeps:
            self._known[key] = vector
        return vector

    async def close(self) -> None:
        """End what is under way."""
        for batcher in self._batchers.values():
            await batcher.close()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _queries(self, batch: Sequence[tuple[ServedIndex, str]]) -> list[np.ndarray]:
        with self._metrics.stage("embed"):
            return await self._run(batch, "query")

    async def _passages(self, batch: Sequence[tuple[ServedIndex, str]]) -> list[np.ndarray]:
        with self._metrics.stage("embed_passages"):
            return await self._run(batch, "passage")

    async def _run(
        self, batch: Sequence[tuple[ServedIndex, str]], kind: Literal["query", "passage"]
    ) -> list[np.ndarray]:
        index = batch[0][0]

        def work() -> list[np.ndarray]:
            return list(index.encoder.embed([text for _, text in batch], kind))

        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
