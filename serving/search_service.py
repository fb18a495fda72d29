"""Searches as callers see them: only what they may see, from a cache where it is right, stale where that is allowed."""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from rag_core.config import RagConfig
from rag_core.errors import PermanentError
from rag_core.tables.document_reading import labels_of
from rag_core.tables.store import Store
from serving.cache.base import Cache
from serving.cache.single_flight import SingleFlight
from serving.caller import Caller
from serving.errors import ApiError, index_unavailable
from serving.index.holder import IndexHolder
from serving.index.snapshot import Snapshot
from serving.milvus_guard import MilvusUnavailable
from serving.observability.metrics import Metrics
from serving.retrieval import codec
from serving.retrieval.engine import SearchEngine
from serving.retrieval.query import Found, Query

_LOGGER = logging.getLogger("rag.serving.search")
_LOOKS_MISSED = 10  # after so many, nobody knows any more whether what is cached is still so


class SearchService:
    """Made once; safe for all requests of an event loop."""

    def __init__(
        self,
        config: RagConfig,
        store: Store,
        *,
        holder: IndexHolder,
        engine: SearchEngine,
        cache: Cache,
        metrics: Metrics,
    ) -> None:
        self._config = config
        self._settings = config.serving.cache
        self._store = store
        self._holder = holder
        self._engine = engine
        self._cache = cache
        self._metrics = metrics
        self._flight = SingleFlight()

    async def search(self, caller: Caller, query: Query, snapshot: Snapshot) -> Found:
        """Search, once for all who ask the same at the same time.

        Args:
            caller: Whose labels restrict the search.
            query: Without labels; whatever it has is replaced.
            snapshot: What is searched.

        Raises:
            ApiError: 503 if Milvus does not answer and there is no older result that may be given out; 422 for a search
                by words of an index without words.
        """
        if query.mode == "bm25" and not snapshot.index.has_words:
            message = "this index has no words to search by; ask by mode dense or hybrid"
            raise ApiError(422, "mode_not_offered", message, param="mode")
        query = query.with_labels(snapshot.labels_for(caller))
        if query.filters.admits_nothing:
            return Found((), snapshot.index.collection, snapshot.version_for(query.filters.sources))
        # The version is older than the search, never newer: what a change after it adds is kept under a name that the
        # next look no longer asks for.
        version = snapshot.version_for(query.filters.sources)
        key = f"result:{version}:{query.key}"
        if self._may_use_cache() and (known := await self._cached(key)) is not None:
            self._metrics.cache.labels("results", "hit").inc()
            return known
        try:
            found, shared = await self._flight.run(key, lambda: self._search(query, snapshot, version))
        except MilvusUnavailable as error:
            return await self._stale(query, error, snapshot.labels_for(caller))
        self._metrics.cache.labels("results", "shared" if shared else "miss").inc()
        return found

    async def search_again(self, caller: Caller, query: Query) -> tuple[Found, Snapshot]:
        """Search what is served now; if its collection vanishes meanwhile, once more in what took its place."""
        with self._holder.use() as snapshot:
            try:
                return await self.search(caller, query, snapshot), snapshot
            except PermanentError:
                if not await self._holder.look():
                    raise
        with self._holder.use() as snapshot:
            return await self.search(caller, query, snapshot), snapshot

    async def warm(self, snapshot: Snapshot, queries: Sequence[tuple[str, str]]) -> None:
        """Ask an index that takes no traffic yet what is asked most, so that model, statistics and Milvus are ready."""
        for text, mode in queries or [("warm up", "hybrid")]:
            if mode == "bm25" and not snapshot.index.has_words:
                continue
            with suppress(MilvusUnavailable):
                await self._engine.search(snapshot, Query(text, mode=mode))  # type: ignore[arg-type]  # a mode as stored

    async def visible(self, doc_ids: Sequence[str], labels: tuple[str, ...] | None) -> set[str]:
        """Return those of the documents that are there and may be seen now, as the table says."""
        found = await asyncio.to_thread(labels_of, self._store, self._config, list(doc_ids))
        return {doc_id for doc_id, label in found.items() if labels is None or label in labels}

    def _may_use_cache(self) -> bool:
        looked_at = self._holder.looked_at
        return looked_at is not None and time.monotonic() - looked_at < _LOOKS_MISSED * self._settings.look_s

    async def _search(self, query: Query, snapshot: Snapshot, version: str) -> Found:
        found = replace(await self._engine.search(snapshot, query), version=version)
        data = codec.to_bytes(found)
        await self._cache.set(
            f"result:{version}:{query.key}", data, ttl_s=self._settings.results_ttl_s, doc_ids=found.doc_ids
        )
        if self._settings.stale_ttl_s:
            await self._cache.set(f"stale:{query.key}", data, ttl_s=self._settings.stale_ttl_s, doc_ids=found.doc_ids)
        return found

    async def _cached(self, key: str) -> Found | None:
        data = await self._cache.get(key)
        if data is None:
            return None
        try:
            return codec.from_bytes(data)
        except (ValueError, TypeError, KeyError):
            _LOGGER.warning("a cached result cannot be read; it was written by another version")
            return None

    async def _stale(self, query: Query, error: MilvusUnavailable, labels: tuple[str, ...] | None) -> Found:
        """Give out an older result, without what is gone or may not be seen any more."""
        found = await self._cached(f"stale:{query.key}") if self._settings.stale_ttl_s else None
        if found is None:
            raise index_unavailable(error.retry_after_s) from error
        try:
            visible = await self.visible(found.doc_ids, labels)
        except Exception as unreadable:  # whatever keeps the table from being read: nothing is shown unchecked
            raise index_unavailable(error.retry_after_s) from unreadable
        self._metrics.cache.labels("results", "stale").inc()
        passages = tuple(one for one in found.passages if one.hit.doc_id in visible)
        return replace(found, passages=passages, stale=True)


def not_found(what: str) -> ApiError:
    """Make the error of something that is not there, or is not the caller's to see: nobody learns which."""
    return ApiError(404, "not_found", f"{what} is not there, or not yours to see")
