"""What is measured: a collection with the model, statistics and parameters that questions to it need."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_core.generation import Generation
from rag_core.index.bm25 import TermStatistics
from rag_core.index.client import IndexClient
from rag_core.retrieval.filters import SearchFilters
from rag_core.retrieval.ranking import Mode
from rag_core.retrieval.search import DocumentHit, search_documents

if TYPE_CHECKING:
    from rag_core.embedding.encoder import Encoder

Embed = Callable[[Sequence[str]], np.ndarray]
"""Turns questions into (n, dim) float32, rows of unit length, in order."""


class QueryVectors:
    """Vectors of questions; each is embedded once for each model, however many collections and modes are asked.

    Models stay loaded as long as this object lives. Not safe to use from several threads.
    """

    def __init__(self) -> None:
        self._encoders: dict[str, Encoder] = {}
        self._vectors: dict[tuple[str, str], np.ndarray] = {}

    def of(self, generation: Generation, questions: Sequence[str]) -> np.ndarray:
        """Embed questions with a generation's model; (n, dim) float32, rows of unit length, in order."""
        model = generation.spec.fingerprint
        missing = [text for text in dict.fromkeys(questions) if (model, text) not in self._vectors]
        if missing:
            vectors = self._encoder(generation).embed(missing, "query")
            self._vectors.update({(model, text): vector for text, vector in zip(missing, vectors, strict=True)})
        rows = [self._vectors[model, text] for text in questions]
        return np.stack(rows) if rows else np.empty((0, generation.spec.dim), np.float32)

    def _encoder(self, generation: Generation) -> "Encoder":
        model = generation.spec.fingerprint
        if model not in self._encoders:
            from rag_core.embedding.encoder import make_encoder

            self._encoders[model] = make_encoder(generation.config.embedding, generation.spec)
        return self._encoders[model]


@dataclass(frozen=True)
class SearchTarget:
    """A collection as it is searched.

    Attributes:
        collection: Its name; not an alias, which may move while it is measured.
        model_fingerprint: Of the model that `embed` uses.
        embed: Embeds questions.
        statistics: How rare terms are; None lets all weigh the same.
        search_params: Of the dense index, such as ef.
    """

    collection: str
    model_fingerprint: str
    embed: Embed
    statistics: TermStatistics | None = None
    search_params: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        generation: Generation,
        vectors: QueryVectors,
        *,
        statistics: TermStatistics | None,
        search_params: Mapping[str, Any] | None = None,
    ) -> "SearchTarget":
        """Make the target of a generation; without search parameters those of its configuration hold."""
        return cls(
            collection=generation.collection,
            model_fingerprint=generation.spec.fingerprint,
            embed=lambda questions: vectors.of(generation, questions),
            statistics=statistics,
            search_params=generation.config.index.search_params if search_params is None else search_params,
        )

    def rank(
        self,
        client: IndexClient,
        question: str,
        vector: np.ndarray,
        *,
        mode: Mode,
        depth: int,
        filters: SearchFilters | None = None,
    ) -> list[DocumentHit]:
        """Rank documents by their best chunk; arguments and errors as in `rag_core.retrieval.search`."""
        return search_documents(
            client,
            self.collection,
            text=question,
            vector=vector,
            model_fingerprint=self.model_fingerprint,
            mode=mode,
            depth=depth,
            filters=filters,
            search_params=self.search_params,
            statistics=self.statistics,
        )
