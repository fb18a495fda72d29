"""Searching for many callers at once: batches go to the model and to Milvus, each caller gets their own."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any, Final, Literal

import numpy as np
from cachetools import LRUCache

from rag_core.config import RagConfig
from rag_core.index import schema
from rag_core.index.client import IndexClient
from rag_core.retrieval.effort import Curve, Effort, effort_for
from rag_core.retrieval.passages import distinct, estimated_tokens, wanted_around, widened, within_budget
from rag_core.retrieval.ranking import Candidate, FieldRequest, Ranker, ask
from rag_core.retrieval.search import SHOWN, Hit, depth_for, hit_of
from rag_core.retrieval.served import ServedIndex
from serving.index.snapshot import Snapshot
from serving.milvus_guard import MilvusGuard
from serving.observability.metrics import Metrics
from serving.retrieval.batcher import Batcher
from serving.retrieval.embedding import QueryEmbedder
from serving.retrieval.query import Found, Passage, Query
from serving.retrieval.reranking import Reranker

_FIELDS: Final = (*SHOWN, "access_label")
_SPARE: Final = 4  # further candidates whose rows are read, to take the place of duplicates
_STAGE: Final = {schema.DENSE: "dense", schema.SPARSE: "bm25"}
_AT_ONCE: Final = 2  # requests to Milvus for each field: one is prepared while the other is answered
Rows = dict[str, dict[str, Any]]


class SearchEngine:
    """Made once; for one event loop."""

    def __init__(self, config: RagConfig, client: IndexClient, guard: MilvusGuard, metrics: Metrics) -> None:
        self._settings = config.serving.retrieval
        self._client = client
        self._guard = guard
        self._metrics = metrics
        self._embedder = QueryEmbedder(self._settings, metrics)
        self._reranker = Reranker(config)
        most = self._settings.batch
        self._fields = {
            field: Batcher[FieldRequest, list[Candidate]](
                stage, partial(self._ask, stage), most=most, at_once=_AT_ONCE, metrics=metrics
            )
            for field, stage in _STAGE.items()
        }
        self._rows = Batcher[tuple[str, Sequence[str], float], Rows](
            "fetch", self._fetch, most=most, at_once=_AT_ONCE, metrics=metrics
        )
        self._curves: LRUCache[tuple[str, str], Curve | None] = LRUCache(8)

    async def close(self) -> None:
        """End what is under way."""
        for batcher in self._fields.values():
            await batcher.close()
        await self._rows.close()
        await self._embedder.close()
        await self._reranker.close()

    async def embed(self, index: ServedIndex, texts: Sequence[str], kind: Literal["query", "passage"]) -> np.ndarray:
        """Embed texts by the model of an index; (n, dim) float32, rows of unit length, in order."""
        return await self._embedder.embed(index, texts, kind)

    async def search(self, snapshot: Snapshot, query: Query) -> Found:
        """Search the collection of a snapshot.

        Args:
            snapshot: What is searched, whatever is published meanwhile.
            query: With the labels that its caller may see.

        Returns:
            Passages without near duplicates, best first. The version is left empty.

        Raises:
            MilvusUnavailable: Milvus does not answer.
            PermanentError: The collection is gone, or the query cannot be asked.
        """
        began = perf_counter()
        clock = _Clock()
        index = snapshot.index
        effort = await self._effort(index, query)
        vector: np.ndarray | None = None
        if query.mode != "bm25":
            with clock.stage("embed"):
                vector = (await self._embedder.embed(index, [query.text], "query"))[0]
        ranker = await self._ranker(snapshot, query, vector, effort)
        hits, ranks = await self._found(snapshot, query, ranker, effort, clock)
        explained = {hit.chunk_id: ranks.get(hit.chunk_id, {}) for hit in hits} if query.explain else {}
        if query.rerank and self._reranker.is_configured:
            with clock.stage("rerank"), self._metrics.stage("rerank"):
                hits = await self._reranked(query, hits, explained)
        passages = await self._passages(snapshot, query, hits[: query.top_k], explained, clock)
        self._metrics.search_seconds.labels(query.mode).observe(perf_counter() - began)
        return Found(passages, index.collection, "", effort=effort.to_dict(), seconds=clock.seconds)

    async def chunk(
        self, snapshot: Snapshot, chunk_id: str, *, labels: tuple[str, ...] | None, neighbours: int
    ) -> list[Hit] | None:
        """Return a chunk and those around it that may be seen, in the order of the document; None: it may not."""
        rows = await self._read(snapshot, [chunk_id])
        if chunk_id not in rows or not _is_visible(rows[chunk_id], labels):
            return None
        hit = hit_of(rows[chunk_id], 0.0)
        around = await self._around(snapshot, [hit], neighbours, labels)
        # While a document is replaced its new chunks are written before the old ones are deleted: two have one place.
        around[hit.doc_id, hit.ordinal] = hit
        return [around[place] for place in sorted(around)]

    async def _effort(self, index: ServedIndex, query: Query) -> Effort:
        statistics = await asyncio.to_thread(lambda: index.statistics) if query.mode != "dense" else None
        return effort_for(
            query.text,
            search_params=index.search_params,
            statistics=statistics if query.mode == "hybrid" else None,
            curve=await self._curve(index),
            load=self._embedder.waiting / self._settings.batch,
        )

    async def _curve(self, index: ServedIndex) -> Curve | None:
        # A collection that is published again with other parameters was measured again.
        key = (index.collection, index.manifest.search_params)
        if key not in self._curves:
            self._curves[key] = await asyncio.to_thread(index.curve) if index.search_params else None
        return self._curves[key]

    async def _ranker(self, snapshot: Snapshot, query: Query, vector: np.ndarray | None, effort: Effort) -> Ranker:
        index = snapshot.index
        make = partial(
            Ranker.of,
            self._client,
            index.collection,
            text=query.text,
            vector=vector,
            model_fingerprint=index.model_fingerprint,
            mode=query.mode,
            filters=query.filters,
            search_params=effort.search_params,
            statistics=None if query.mode == "dense" else index.statistics,
            consistency=snapshot.seen_at,
        )
        # Milvus is asked only what a collection is that was not searched before, and which partitions it has.
        if self._client.knows(index.collection) and query.filters.partition_keys is None:
            return make()
        return await self._guard.call(make)

    async def _found(
        self, snapshot: Snapshot, query: Query, ranker: Ranker, effort: Effort, clock: "_Clock"
    ) -> tuple[list[Hit], dict[str, dict[str, Any]]]:
        """Return the best hits, and the ranks of candidates if the query asks for them.

        Lists are fused at full depth, and the rows of the best are read afterwards. One list needs no more than is
        shown, and brings the rows along; what takes long in Milvus Lite is each hit. Only if duplicates leave too few
        of it, more is asked for.
        """
        wanted = max(query.top_k, self._settings.rerank_depth if query.rerank else 0)
        is_fused = query.mode == "hybrid"
        for depth in (depth_for(wanted),) if is_fused else (wanted + _SPARE, depth_for(wanted)):
            with clock.stage("search"):
                requests = ranker.requests(depth) if is_fused else ranker.requests(depth, _FIELDS)
                rankings = await asyncio.gather(*(self._answer(request) for request in requests))
            ranking = ranker.combine(rankings, depth, weights=effort.weights if is_fused else None)
            hits = await self._hits(snapshot, query, ranking.candidates, wanted, clock)
            if len(hits) >= wanted or ranking.is_whole:
                break
        if not query.explain:
            return hits, {}
        names = [name for name, mode in (("dense", "bm25"), ("bm25", "dense")) if query.mode != mode]
        return hits, _ranks(names[: len(rankings)], rankings)  # an index without words has one list only

    async def _answer(self, request: FieldRequest | None) -> list[Candidate]:
        return [] if request is None else await self._fields[request.field].submit(request, request.group)

    async def _hits(
        self, snapshot: Snapshot, query: Query, candidates: list[Candidate], wanted: int, clock: "_Clock"
    ) -> list[Hit]:
        """Return the best candidates without those that are gone, not to be seen, or there already."""
        labels = query.filters.access_labels
        seen: list[Hit] = []
        hits: list[Hit] = []
        for start in range(0, len(candidates), wanted + _SPARE):
            some = candidates[start : start + wanted + _SPARE]
            rows: Mapping[str, Mapping[str, Any]] = {one.chunk_id: one.row for one in some}
            if query.mode == "hybrid":
                # A document may have been deleted, or taken from the caller, since the rankings were made.
                with clock.stage("fetch"):
                    rows = await self._read(snapshot, [*rows])
            seen += [
                hit_of(rows[one.chunk_id], one.score)
                for one in some
                if one.chunk_id in rows and _is_visible(rows[one.chunk_id], labels)
            ]
            hits = distinct(seen, similarity=self._settings.duplicate_similarity, most=wanted)
            if len(hits) == wanted:
                break
        return hits

    async def _reranked(self, query: Query, hits: list[Hit], explained: dict[str, dict[str, Any]]) -> list[Hit]:
        head = hits[: self._settings.rerank_depth]
        scores = await self._reranker.scores(query.text, [hit.text for hit in head])
        for at, hit in enumerate(head):
            if hit.chunk_id in explained:
                explained[hit.chunk_id]["rerank"] = "failed" if scores is None else scores[at]
        if scores is None:
            return hits
        order = sorted(range(len(head)), key=lambda at: (-scores[at], at))
        return [replace(head[at], score=scores[at]) for at in order] + hits[len(head) :]

    async def _passages(
        self,
        snapshot: Snapshot,
        query: Query,
        hits: list[Hit],
        explained: dict[str, dict[str, Any]],
        clock: "_Clock",
    ) -> tuple[Passage, ...]:
        around: dict[tuple[str, int], Hit] = {}
        if query.neighbours and hits:
            with clock.stage("neighbours"), self._metrics.stage("neighbours"):
                around = await self._around(snapshot, hits, query.neighbours, query.filters.access_labels)
        stretches = widened(hits, around, query.neighbours)
        fit = within_budget(stretches, query.passage_tokens)
        return tuple(
            Passage(hit, one.text, one.span, estimated_tokens(one.text), explained.get(hit.chunk_id, {}))
            for hit, one in zip(hits[:fit], stretches[:fit], strict=True)
        )

    async def _around(
        self, snapshot: Snapshot, hits: Sequence[Hit], neighbours: int, labels: Sequence[str] | None
    ) -> dict[tuple[str, int], Hit]:
        """Read chunks by document and ordinal, of those that may be seen."""
        places = [
            f'(doc_id == "{doc_id}" and ordinal >= {first} and ordinal <= {last})'
            for doc_id, first, last in wanted_around(hits, neighbours)
        ]
        collection, moment = snapshot.index.collection, snapshot.seen_at
        rows = await self._guard.call(lambda: self._client.query(collection, " or ".join(places), _FIELDS, moment))
        return {(row["doc_id"], row["ordinal"]): hit_of(row, 0.0) for row in rows if _is_visible(row, labels)}

    async def _ask(self, stage: str, batch: Sequence[FieldRequest]) -> list[list[Candidate]]:
        with self._metrics.stage(stage):
            return await self._guard.call(lambda: ask(self._client, batch))

    async def _read(self, snapshot: Snapshot, chunk_ids: Sequence[str]) -> Rows:
        collection, moment = snapshot.index.collection, snapshot.seen_at
        return await self._rows.submit((collection, chunk_ids, moment), (collection, moment))

    async def _fetch(self, batch: Sequence[tuple[str, Sequence[str], float]]) -> list[Rows]:
        """Read the rows of a whole batch at once; each caller gets their own only."""
        collection, _, moment = batch[0]
        every = list(dict.fromkeys(chunk_id for _, ids, _ in batch for chunk_id in ids))
        with self._metrics.stage("fetch"):
            rows = await self._guard.call(lambda: self._client.fetch(collection, None, every, _FIELDS, moment))
        return [{chunk_id: rows[chunk_id] for chunk_id in ids if chunk_id in rows} for _, ids, _ in batch]


class _Clock:
    """Times the stages of one search."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + perf_counter() - began, 6)


def _is_visible(row: Mapping[str, Any], labels: Sequence[str] | None) -> bool:
    return labels is None or row["access_label"] in labels


def _ranks(names: Sequence[str], rankings: Sequence[Sequence[Candidate]]) -> dict[str, dict[str, Any]]:
    """Chunk -> field -> rank, from 1, and score."""
    found: dict[str, dict[str, Any]] = {}
    for name, ranking in zip(names, rankings, strict=True):
        for rank, one in enumerate(ranking, start=1):
            found.setdefault(one.chunk_id, {})[name] = {"rank": rank, "score": one.score}
    return found
