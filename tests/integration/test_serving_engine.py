"""The engine finds what a plain search finds, for many at once, and never what a caller may not see."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest

from rag_core.index.client import IndexClient, connect
from rag_core.retrieval.access_labels import LabelReader
from rag_core.retrieval.filters import SearchFilters
from rag_core.retrieval.ranking import Mode
from rag_core.retrieval.search import search
from rag_core.retrieval.served import ServedIndex
from rag_core.stages.publication import latest_manifest
from serving.index.snapshot import Snapshot
from serving.milvus_guard import MilvusGuard
from serving.observability.metrics import Metrics
from serving.retrieval.engine import SearchEngine
from serving.retrieval.query import Found, Query
from tests.integration.pipeline_helpers import Platform
from tests.integration.serving_corpus import PRINCIPALS, TOPICS, may_see

pytestmark = [pytest.mark.milvus, pytest.mark.slow]

# Long enough to be no look-up, so that both lists weigh the same.
QUESTIONS = [
    *(f"what do the documents tell their readers about {text.split('.')[0].lower()}" for text in TOPICS.values()),
    "to whom do employees of the agency report that a laptop was stolen from them",
    "how many hours do people of the agency work in one week and who approves of it",
    "which of the many rules is about phishing and the devices that people lose",
]


@dataclass
class Engine:
    made: SearchEngine
    client: IndexClient
    snapshot: Snapshot
    loop: asyncio.AbstractEventLoop

    def find(self, *queries: Query) -> list[Found]:
        """Search for all of them at once."""

        async def run() -> list[Found]:
            return list(await asyncio.gather(*(self.made.search(self.snapshot, query) for query in queries)))

        return self.loop.run_until_complete(run())


@pytest.fixture(scope="module")
def engine(indexed: Platform) -> Iterator[Engine]:
    config, store = indexed.config, indexed.store
    manifest = latest_manifest(store)
    assert manifest is not None
    metrics = Metrics()
    loop = asyncio.new_event_loop()
    with connect(config.index, store) as client:
        guard = MilvusGuard(config.serving.retrieval, metrics)
        made = SearchEngine(config, client, guard, metrics)
        index = ServedIndex(config, manifest, store)
        snapshot = Snapshot(index, access=LabelReader(store).read(), versions={}, looked_at=0.0)
        yield Engine(made, client, snapshot, loop)
        loop.run_until_complete(made.close())
        loop.run_until_complete(guard.close())
        loop.close()


def plainly(engine: Engine, query: Query) -> list[tuple[str, float]]:
    """Search as `rag search` does."""
    index = engine.snapshot.index
    found = search(
        engine.client,
        index.collection,
        text=query.text,
        vector=index.encoder.embed([query.text], "query")[0],
        model_fingerprint=index.model_fingerprint,
        mode=query.mode,
        top_k=query.top_k,
        filters=query.filters,
        search_params=index.search_params,
        statistics=index.statistics,
    )
    return [(hit.chunk_id, hit.score) for hit in found]


def ids(found: Found) -> list[str]:
    return [passage.hit.chunk_id for passage in found.passages]


@pytest.mark.parametrize("mode", ["dense", "bm25", "hybrid"])
@pytest.mark.parametrize("filters", [SearchFilters(), SearchFilters(sources=["topics"])])
def test_it_finds_what_a_plain_search_finds(engine: Engine, mode: Mode, filters: SearchFilters) -> None:
    queries = [Query(text, mode=mode, top_k=5, filters=filters) for text in QUESTIONS]
    for query, found in zip(queries, engine.find(*queries), strict=True):
        assert found.effort["reasons"] in ([], ["rare"])
        if found.effort["reasons"] and mode == "hybrid":
            continue  # weighed otherwise than a plain search, on purpose
        wanted = plainly(engine, query)
        assert ids(found) == [chunk_id for chunk_id, _ in wanted]
        assert [one.hit.score for one in found.passages] == pytest.approx([score for _, score in wanted], abs=1e-4)


def test_many_at_once_find_what_each_finds_alone(engine: Engine) -> None:
    modes: list[Mode] = ["dense", "bm25", "hybrid"]
    queries = [
        Query(text, mode=mode, top_k=top_k, neighbours=top_k % 2, explain=True)
        for text in QUESTIONS
        for mode in modes
        for top_k in (3, 10)
    ]
    alone = [engine.find(query)[0] for query in queries]
    for one, other in zip(alone, engine.find(*queries), strict=True):
        assert ids(one) == ids(other)
        assert [(p.text, p.span) for p in one.passages] == [(p.text, p.span) for p in other.passages]


def test_few_hits_and_more_than_there_are(engine: Engine) -> None:
    for mode in ("dense", "bm25", "hybrid"):
        everything, one, none = engine.find(
            Query("security", mode=cast(Mode, mode), top_k=100),
            Query("security", mode=cast(Mode, mode), top_k=1),
            Query("security", mode=cast(Mode, mode), filters=SearchFilters(sources=[])),
        )
        assert len(one.passages) == 1
        assert ids(one) == ids(everything)[:1]
        assert not none.passages
        assert len(set(ids(everything))) == len(everything.passages) > 5


@pytest.mark.parametrize("name", sorted(PRINCIPALS))
def test_labels_hold_in_every_mode_and_for_neighbours(engine: Engine, name: str) -> None:
    labels = engine.snapshot.access.labels_for(PRINCIPALS[name])
    seen = {
        passage.hit.external_id
        for found in engine.find(
            *(Query(text, mode=mode, neighbours=3, top_k=50).with_labels(labels)
              for text in QUESTIONS for mode in cast(list[Mode], ["dense", "bm25", "hybrid"]))
        )
        for passage in found.passages
        if passage.hit.source == "topics"
    }  # fmt: skip
    assert seen == may_see(name)


def test_a_chunk_and_those_around_it(engine: Engine) -> None:
    (found,) = engine.find(Query("phishing and lost devices", filters=SearchFilters(sources=["handbook"])))
    hit = next(passage.hit for passage in found.passages if passage.hit.ordinal)

    def chunk(chunk_id: str, labels: tuple[str, ...] | None, neighbours: int = 1) -> list[Any] | None:
        asked = engine.made.chunk(engine.snapshot, chunk_id, labels=labels, neighbours=neighbours)
        return engine.loop.run_until_complete(asked)

    around = chunk(hit.chunk_id, None, 2)
    assert around is not None
    assert {one.doc_id for one in around} == {hit.doc_id}
    assert replace(hit, score=0.0) in around
    ordinals = [one.ordinal for one in around]
    assert ordinals == list(range(ordinals[0], ordinals[-1] + 1))
    assert chunk(hit.chunk_id, ()) is None
    assert chunk("0" * 32, None) is None
