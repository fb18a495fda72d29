"""Reranking by a cross-encoder, which reads question and passage together."""

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from math import isfinite
from typing import TYPE_CHECKING

from rag_core.config import RagConfig

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

_LOGGER = logging.getLogger("rag.serving.rerank")


class Reranker:
    """Made once; without a model in the configuration it scores nothing."""

    def __init__(self, config: RagConfig) -> None:
        self._name = config.serving.retrieval.rerank_model
        self._may_download = config.embedding.allow_download
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rerank")

    @property
    def is_configured(self) -> bool:
        """Whether there is a model."""
        return self._name is not None

    async def scores(self, question: str, texts: Sequence[str]) -> list[float] | None:
        """Return how well each text answers; None if the model fails, which is logged."""
        if self._name is None or not texts:
            return None

        def work() -> list[float]:
            scores = [float(score) for score in self._model.predict([(question, text) for text in texts])]
            if not all(map(isfinite, scores)):
                raise ValueError("the reranking model gave a score that is not finite")
            return scores

        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except Exception:  # whatever a model does: the order that was found first is an answer
            _LOGGER.exception("reranking failed; results keep their order")
            return None

    async def close(self) -> None:
        """Take no more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    @cached_property
    def _model(self) -> "CrossEncoder":
        from sentence_transformers import CrossEncoder

        return CrossEncoder(self._name or "", local_files_only=not self._may_download)
