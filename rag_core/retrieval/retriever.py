"""Searching the published index: the alias, the manifest's parameters, and the model that the index was built with."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from rag_core.config import RagConfig
from rag_core.errors import PermanentError
from rag_core.evaluation.target import SearchTarget
from rag_core.index.client import IndexClient, connect
from rag_core.retrieval.filters import SearchFilters
from rag_core.retrieval.ranking import Mode
from rag_core.retrieval.search import DocumentHit, Hit, search, search_documents
from rag_core.retrieval.served import ServedIndex
from rag_core.stages.publication import Manifest, latest_manifest, manifests
from rag_core.tables.store import Store


class Retriever:
    """Embeds questions and searches the published collection; made by `open_retriever`.

    A question is answered by one collection as a whole: its model, its term statistics, its rows. When the alias has
    moved, the next question goes to the new one; those under way end with the old one, which is kept. Not safe to use
    from several threads.
    """

    def __init__(self, config: RagConfig, client: IndexClient) -> None:
        self._config = config
        self._client = client
        self._store = Store.of(config.store)
        self._serving: ServedIndex | None = None

    @property
    def manifest(self) -> Manifest:
        """What is served now."""
        return self._served().manifest

    @property
    def client(self) -> IndexClient:
        """The connection that is searched through."""
        return self._client

    @property
    def target(self) -> SearchTarget:
        """The published collection, to be measured; it stays the same if the alias moves meanwhile."""
        serving = self._served()
        return SearchTarget(
            collection=serving.manifest.collection,
            model_fingerprint=serving.manifest.model_fingerprint,
            embed=lambda questions: serving.encoder.embed(list(questions), "query"),
            statistics=serving.statistics,
            search_params=serving.search_params,
        )

    def embed_queries(self, questions: Sequence[str]) -> np.ndarray:
        """Embed questions; (n, dim) float32, rows of unit length, in order."""
        return self._served().encoder.embed(list(questions), "query")

    def embed_for_answer(self, texts: Sequence[str]) -> np.ndarray:
        """Embed a question (first) and the sentences that may answer it; (n, dim) float32, in order."""
        encoder = self._served().encoder
        return np.concatenate([encoder.embed(list(texts[:1]), "query"), encoder.embed(list(texts[1:]), "passage")])

    def search(
        self, question: str, *, mode: Mode = "hybrid", top_k: int = 10, filters: SearchFilters | None = None
    ) -> list[Hit]:
        """Return the best chunks, best first.

        Args:
            question: What is asked.
            mode: dense, bm25 or hybrid (both, fused by reciprocal rank).
            top_k: How many chunks at most.
            filters: What the chunks must satisfy.
        """
        collection, request = self._request(question, mode, filters)
        return search(self._client, collection, top_k=top_k, **request)

    def search_documents(
        self, question: str, *, mode: Mode = "hybrid", depth: int = 100, filters: SearchFilters | None = None
    ) -> list[DocumentHit]:
        """Rank documents by their best chunk, best first."""
        collection, request = self._request(question, mode, filters)
        return search_documents(self._client, collection, depth=depth, **request)

    def _request(self, question: str, mode: Mode, filters: SearchFilters | None) -> tuple[str, dict[str, Any]]:
        serving = self._served()
        return serving.manifest.collection, {
            "text": question,
            "vector": None if mode == "bm25" else serving.encoder.embed([question], "query")[0],
            "mode": mode,
            "filters": filters,
            "search_params": serving.search_params,
            "statistics": None if mode == "dense" else serving.statistics,
            "model_fingerprint": serving.manifest.model_fingerprint,
        }

    def _served(self) -> ServedIndex:
        """Return what the alias points at, read anew if that is another collection than before."""
        alias = self._config.index.alias
        collection = self._client.alias_target(alias)
        if self._serving is None or self._serving.manifest.collection != collection:
            # The manifest is written before the alias moves: the newest need not be the one that is reached.
            found = [one for one in manifests(self._store) if one.collection == collection]
            if not found:
                raise PermanentError(
                    f"alias {alias} on {self._client.address} points at {collection or 'nothing'}, of which store "
                    f"{self._store.root} has no manifest; build and publish the index: rag run"
                )
            self._serving = ServedIndex(self._config, found[0], self._store)
        return self._serving


@contextmanager
def open_retriever(config: RagConfig) -> Iterator[Retriever]:
    """Connect to the published index; questions are embedded by its model, also while rag.yaml asks for another.

    Raises:
        PermanentError: Nothing was published yet.
        ConfigError: The model that the published index was built with is not there any more.
        FingerprintMismatchError: It is there, but its files are others now.
    """
    store = Store.of(config.store)
    if latest_manifest(store) is None:
        raise PermanentError(f"nothing is published in store {store.root} yet; build the index first: rag run")
    with connect(config.index, store) as client:
        retriever = Retriever(config, client)
        _ = retriever.manifest  # what is wrong with it is said before the first question
        yield retriever
