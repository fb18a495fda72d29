"""Searching the published index: the alias, the manifest's parameters, and the model that the index was built with."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_core.config import RagConfig
from rag_core.embedding.model import resolve_model
from rag_core.errors import FingerprintMismatchError, PermanentError
from rag_core.evaluation.target import SearchTarget
from rag_core.generation import restored
from rag_core.index.bm25 import TermStatistics
from rag_core.index.client import IndexClient, connect
from rag_core.retrieval.filters import SearchFilters
from rag_core.retrieval.ranking import Mode
from rag_core.retrieval.search import DocumentHit, Hit, search, search_documents
from rag_core.stages import term_statistics
from rag_core.stages.publication import Manifest, latest_manifest
from rag_core.tables.store import Store

if TYPE_CHECKING:
    from rag_core.embedding.encoder import Encoder


class Retriever:
    """Embeds questions and searches the published collection; made by `open_retriever`."""

    def __init__(self, config: RagConfig, manifest: Manifest, client: IndexClient) -> None:
        self._config = config
        self.manifest = manifest
        self._client = client
        self._store = Store(config.store.root)
        self._search_params: dict[str, Any] = json.loads(manifest.search_params)

    @cached_property
    def encoder(self) -> "Encoder":
        """The embedding model, loaded when a dense question first needs it."""
        from rag_core.embedding.encoder import make_encoder

        return make_encoder(self._config.embedding)

    @cached_property
    def statistics(self) -> TermStatistics:
        """How rare terms are, as of the publication."""
        version = json.loads(self.manifest.table_versions)[term_statistics.TABLE]
        return term_statistics.load(self._store, version, self.manifest.chunk_lane)

    def embed_queries(self, questions: Sequence[str]) -> np.ndarray:
        """Embed questions; (n, dim) float32, rows of unit length, in order."""
        return self.encoder.embed(list(questions), "query")

    def embed_for_answer(self, texts: Sequence[str]) -> np.ndarray:
        """Embed a question (first) and the sentences that may answer it; (n, dim) float32, in order."""
        rest = self.encoder.embed(list(texts[1:]), "passage")
        return np.concatenate([self.embed_queries(texts[:1]), rest])

    def search(
        self,
        question: str,
        *,
        mode: Mode = "hybrid",
        top_k: int = 10,
        filters: SearchFilters | None = None,
        vector: np.ndarray | None = None,
    ) -> list[Hit]:
        """Return the best chunks, best first.

        Args:
            question: What is asked.
            mode: dense, bm25 or hybrid (both, fused by reciprocal rank).
            top_k: How many chunks at most.
            filters: What the chunks must satisfy.
            vector: (dim,) the question's embedding, when the caller has it already.
        """
        return search(self._client, self.manifest.alias, top_k=top_k, **self._request(question, mode, filters, vector))

    def search_documents(
        self,
        question: str,
        *,
        mode: Mode = "hybrid",
        depth: int = 100,
        filters: SearchFilters | None = None,
        vector: np.ndarray | None = None,
    ) -> list[DocumentHit]:
        """Rank documents by their best chunk, best first."""
        request = self._request(question, mode, filters, vector)
        return search_documents(self._client, self.manifest.alias, depth=depth, **request)

    @property
    def client(self) -> IndexClient:
        """The connection that is searched through."""
        return self._client

    @property
    def target(self) -> SearchTarget:
        """The published collection, to be measured; it stays the same if the alias moves meanwhile."""
        return SearchTarget(
            collection=self.manifest.collection,
            model_fingerprint=self.manifest.model_fingerprint,
            embed=self.embed_queries,
            statistics=self.statistics,
            search_params=self._search_params,
        )

    def _request(
        self, question: str, mode: Mode, filters: SearchFilters | None, vector: np.ndarray | None
    ) -> dict[str, Any]:
        if vector is None and mode != "bm25":
            vector = self.embed_queries([question])[0]
        return {
            "text": question,
            "vector": vector,
            "mode": mode,
            "filters": filters,
            "search_params": self._search_params,
            "statistics": None if mode == "dense" else self.statistics,
            "model_fingerprint": self.manifest.model_fingerprint,
        }


@contextmanager
def open_retriever(config: RagConfig) -> Iterator[Retriever]:
    """Connect to the published index; questions are embedded by its model, also while rag.yaml asks for another.

    Raises:
        PermanentError: Nothing was published yet.
        ConfigError: The model that the published index was built with is not there any more.
        FingerprintMismatchError: It is there, but its files are others now.
    """
    store = Store(config.store.root)
    manifest = latest_manifest(store)
    if manifest is None:
        raise PermanentError(f"nothing is published in store {store.root} yet; build the index first: rag run")
    served = _served(config, manifest)
    with connect(config.index, store) as client:
        yield Retriever(served, manifest, client)


def _served(config: RagConfig, manifest: Manifest) -> RagConfig:
    """Return the configuration with the model of what is served, while rag.yaml asks for one that is not built yet."""
    if resolve_model(config.embedding).fingerprint == manifest.model_fingerprint:
        return config
    served = restored(config, manifest.collection, manifest.settings)
    if served.spec.fingerprint != manifest.model_fingerprint:
        raise FingerprintMismatchError(
            f"the index {manifest.collection} was built with {manifest.model} ({manifest.model_fingerprint[:12]}), but "
            f"{served.spec.name} is another model now ({served.spec.fingerprint[:12]}); queries must be embedded by "
            f"the same model: restore its files, or build and publish an index for the new one (rag run)"
        )
    return served.config
