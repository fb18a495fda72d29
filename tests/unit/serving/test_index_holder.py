"""What is served: taken up when it is published, kept while a look fails, the same for a request to its end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client.samples import Sample

from rag_core import ids
from rag_core.config import RagConfig
from rag_core.embedding import encoder as encoders
from rag_core.errors import TransientError
from rag_core.generation import configured
from rag_core.index.client import IndexClient
from rag_core.retrieval.served import ServedIndex
from rag_core.stages import term_statistics
from rag_core.stages.publication import Manifest, write_manifest
from rag_core.tables.delta import ensure_table
from rag_core.tables.store import Store
from serving.errors import ApiError
from serving.index.holder import IndexHolder
from serving.index.snapshot import Snapshot
from serving.milvus_guard import MilvusGuard
from serving.observability.metrics import Metrics
from tests.unit.stages.generation_rows import config_of, publish_row, put

pytestmark = pytest.mark.anyio
BLUE, GREEN = "rag_blue", "rag_green"
LABEL = ids.access_label(["all"])


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


class Encoder:
    """Stands for a model that was loaded."""


class Client:
    """The alias, and what Milvus answers instead of it."""

    target: str | None = None
    error: Exception | None = None

    def alias_target(self, alias: str) -> str | None:
        assert alias == "rag"
        if self.error:
            raise self.error
        return self.target


@dataclass
class World:
    config: RagConfig
    store: Store
    loads: list[Encoder]
    client: Client = field(default_factory=Client)
    metrics: Metrics = field(default_factory=Metrics)
    warmed: list[Snapshot] = field(default_factory=list)
    published: int = 0

    def publish(self, collection: str, **values: Any) -> Manifest:
        """Write a manifest, and point the alias at its collection."""
        self.published += 1
        generation = configured(self.config)
        lane = f'{{"chunk_lane": "{generation.chunk_lane}"}}'
        version = f'{{"{term_statistics.TABLE}": {ensure_table(self.store, term_statistics.TABLE).version()}}}'
        scratch = Store(self.store.root + "-scratch")
        manifest = publish_row(scratch, collection, lane, number=self.published)
        fitting = {"model_fingerprint": generation.spec.fingerprint, "model": "m", "table_versions": version}
        manifest = replace(manifest, **(fitting | values))
        write_manifest(self.store, manifest, run_id="r")
        self.client.target = collection
        return manifest

    def index(self, collection: str, source: str = "notes") -> None:
        put(self.store, "index_partitions", [{"chunk_id": "c", "partition_key": f"{source}__00"}], collection)

    def samples(self, name: str) -> list[Sample]:
        return [one for metric in self.metrics.registry.collect() for one in metric.samples if one.name == name]

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    @asynccontextmanager
    async def holder(self, warm: Callable[[Snapshot], Awaitable[None]] | None = None) -> AsyncIterator[IndexHolder]:
        async def keep(snapshot: Snapshot) -> None:
            self.warmed.append(snapshot)

        guard = MilvusGuard(self.config.serving.retrieval, self.metrics)
        client = cast(IndexClient, self.client)
        holder = IndexHolder(self.config, self.store, client, guard, self.metrics, warm=warm or keep)
        try:
            yield holder
        finally:
            await holder.stop()
            await guard.close()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    loads: list[Encoder] = []

    def load(_: Any) -> Encoder:
        loads.append(Encoder())
        return loads[-1]

    monkeypatch.setattr(encoders, "make_encoder", load)
    config = config_of(tmp_path, serving={"cache": {"look_s": 3600}})
    world = World(config, Store.of(config.store), loads)
    put(world.store, "documents", [{"doc_id": "d", "status": "ok", "source": "notes", "principals": ["all"],
                                    "access_label": LABEL}])  # fmt: skip
    return world


def served(holder: IndexHolder) -> Snapshot:
    with holder.use() as snapshot:
        return snapshot


async def test_nothing_is_published_yet_and_then_something_is(world: World) -> None:
    async with world.holder() as holder:
        await holder.start()
        with pytest.raises(ApiError) as refused:
            served(holder)
        assert (refused.value.status, refused.value.code) == (503, "index_unavailable")
        assert refused.value.retry_after_s
        assert "nothing is published as rag" in (holder.problem or "")
        assert holder.looked_at is None
        world.index(BLUE)
        manifest = world.publish(BLUE, chunks=7, ann_recall_at_10=0.99)
        assert await holder.look()
        snapshot = served(holder)
        assert snapshot.index.manifest == manifest
        assert list(snapshot.versions) == ["notes"]
        assert snapshot.access.labels_for(["all"]) == (LABEL,)
        assert holder.problem is None
        assert holder.looked_at == snapshot.looked_at
        assert [one.index for one in world.warmed] == [snapshot.index]
        assert world.value("rag_index_chunks") == 7
        assert world.value("rag_index_recall_at_10") == 0.99
        assert not await holder.look()


async def test_milvus_is_gone_from_the_start(world: World) -> None:
    world.index(BLUE)
    world.publish(BLUE)
    world.client.error = TransientError("connection refused")
    async with world.holder() as holder:
        await holder.start()
        assert holder.problem == "connection refused"
        with pytest.raises(ApiError):
            served(holder)


@pytest.mark.slow
async def test_another_collection_is_taken_up_with_the_same_model(world: World) -> None:
    world.index(BLUE)
    world.index(GREEN, "wiki")
    world.publish(BLUE)
    async with world.holder() as holder:
        await holder.look()
        blue = served(holder)
        manifest = world.publish(GREEN)
        assert await holder.look()
        green = served(holder)
        assert green.index.manifest == manifest
        assert list(green.versions) == ["wiki"]
        assert green.index.encoder is blue.index.encoder
        assert len(world.loads) == 1
        assert blue.version_for(None) != green.version_for(None)
        (info,) = world.samples("rag_index_info")  # that of the other is gone
        assert info.labels["collection"] == GREEN
        assert world.value("rag_index_switches_total", outcome="switched") == 2


async def test_a_manifest_is_taken_up_when_its_alias_is_pointed(world: World) -> None:
    world.index(BLUE)
    world.publish(BLUE)
    async with world.holder() as holder:
        await holder.look()
        world.publish(GREEN)
        world.client.target = BLUE  # the run was killed between the two
        assert not await holder.look()
        assert served(holder).index.collection == BLUE


@pytest.mark.slow
async def test_publications_of_one_collection(world: World) -> None:
    """One with other search parameters is warmed and answers otherwise; one that only counts anew does neither."""
    world.index(BLUE)
    world.publish(BLUE, search_params='{"ef": 32}')
    async with world.holder() as holder:
        await holder.look()
        first = served(holder)
        world.publish(BLUE, search_params='{"ef": 32}', documents=5)
        assert await holder.look()
        second = served(holder)
        assert second.index.manifest.documents == 5
        assert second.version_for(None) == first.version_for(None)
        assert second.index.statistics is first.index.statistics
        assert len(world.warmed) == 1
        world.publish(BLUE, search_params='{"ef": 64}')
        assert await holder.look()
        third = served(holder)
        assert third.index.search_params == {"ef": 64}
        assert third.version_for(None) != first.version_for(None)
        assert len(world.warmed) == 2


@pytest.mark.slow
async def test_other_term_statistics_are_loaded(world: World) -> None:
    world.index(BLUE)
    world.publish(BLUE)
    lane = configured(world.config).chunk_lane
    async with world.holder() as holder:
        await holder.look()
        first = served(holder)
        put(world.store, term_statistics.TABLE, [{"term_id": 1, "chunks_with_term": 2, "chunks": 3}], lane)
        world.publish(BLUE)
        assert await holder.look()
        assert (first.index.statistics.chunks, served(holder).index.statistics.chunks) == (0, 3)
        assert served(holder).version_for(None) != first.version_for(None)


@pytest.mark.slow
async def test_while_milvus_is_gone_tables_are_still_followed(world: World) -> None:
    world.index(BLUE)
    world.publish(BLUE)
    async with world.holder() as holder:
        await holder.look()
        before = served(holder)
        world.client.error = TransientError("connection refused")
        world.index(BLUE, "wiki")
        ensure_table(world.store, "documents").delete()
        manifest = world.publish(BLUE, documents=9)
        assert await holder.look()
        now = served(holder)
        assert holder.problem == "connection refused"
        assert set(now.versions) == {"notes", "wiki"}
        assert now.version_for(["notes"]) == before.version_for(["notes"])
        assert now.version_for(None) != before.version_for(None)
        assert now.access.labels_for(["all"]) == ()
        assert now.index.manifest == manifest
        assert (holder.looked_at or 0) > before.looked_at
        world.client.error = None
        await holder.look()
        assert holder.problem is None


@pytest.mark.slow
async def test_what_cannot_be_taken_up_leaves_what_is_served(world: World) -> None:
    world.index(BLUE)
    world.publish(BLUE)
    async with world.holder() as holder:
        await holder.look()
        before = served(holder)
        world.client.target = "rag_unknown"
        assert not await holder.look()
        assert "no manifest" in (holder.problem or "")
        world.publish(GREEN, model_fingerprint="of another model", settings='{"chunk_lane": "x"}')
        assert not await holder.look()
        assert holder.problem
        assert served(holder).index is before.index
        assert world.value("rag_index_switches_total", outcome="failed") == 1
        world.publish(GREEN)
        assert await holder.look()
        assert holder.problem is None


async def test_an_index_that_cannot_be_warmed_is_served_cold(world: World) -> None:
    async def broken(_: Snapshot) -> None:
        raise RuntimeError("no question")

    world.index(BLUE)
    world.publish(BLUE)
    async with world.holder(broken) as holder:
        assert await holder.look()
        assert served(holder).index.collection == BLUE
        assert holder.problem is None


async def test_a_request_keeps_its_snapshot_and_its_index_is_in_use_until_it_ends(world: World) -> None:
    world.index(BLUE)
    world.publish(BLUE)
    async with world.holder() as holder:
        await holder.look()
        with holder.use() as mine, holder.use():
            blue = mine.index
            world.publish(GREEN)
            await holder.look()
            assert served(holder).index.collection == GREEN
            unused = asyncio.create_task(holder.unused(blue))
            await asyncio.sleep(0)
            assert mine.index is blue
            assert not unused.done()
        await unused
        await holder.unused(served(holder).index)  # nobody is in it


async def test_documents_that_change_while_an_index_is_warmed(world: World) -> None:
    """The served index is followed meanwhile, and the new one begins with the versions after it was warmed."""
    world.index(BLUE)
    world.publish(BLUE)
    warming, go_on = asyncio.Event(), asyncio.Event()

    async def slow(snapshot: Snapshot) -> None:
        if snapshot.index.collection == GREEN:
            warming.set()
            await go_on.wait()

    async with world.holder(slow) as holder:
        await holder.look()
        before = served(holder)
        world.publish(GREEN)
        taking_up = asyncio.create_task(holder._following.take())
        await warming.wait()
        world.index(BLUE, "wiki")
        world.index(GREEN, "wiki")
        assert await holder._refreshing.take()
        assert served(holder).index is before.index
        assert set(served(holder).versions) == {"notes", "wiki"}
        go_on.set()
        assert await taking_up
        assert served(holder).index.collection == GREEN
        assert set(served(holder).versions) == {"wiki"}


@pytest.mark.slow
async def test_a_reading_of_the_replaced_index_does_not_bring_it_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.index(BLUE)
    world.publish(BLUE)
    async with world.holder() as holder:
        await holder.look()
        blue, original = served(holder).index, holder._snapshot_of
        reading, go_on = asyncio.Event(), asyncio.Event()

        async def slowly(index: ServedIndex) -> Snapshot:
            snapshot = await original(index)
            if index is blue:
                reading.set()
                await go_on.wait()
            return snapshot

        monkeypatch.setattr(holder, "_snapshot_of", slowly)
        refreshing = asyncio.create_task(holder._refreshing.take())
        await reading.wait()
        world.publish(GREEN)
        assert await holder._following.take()
        go_on.set()
        assert not await refreshing
        assert served(holder).index.collection == GREEN


async def test_a_store_that_cannot_be_read_is_a_problem_and_then_none(world: World) -> None:
    world.index(BLUE)
    world.publish(BLUE)
    async with world.holder() as holder:
        await holder.look()
        before = served(holder)
        put(world.store, "documents", [{"doc_id": "e", "status": "ok", "source": "wiki", "partition_key": "wiki__00"}])
        (path,) = Path(world.store.table_uri("documents"), "partition_key=wiki__00").glob("*.parquet")
        content = path.read_bytes()
        path.unlink()
        assert not await holder.look()
        assert holder.problem
        assert served(holder) is before
        assert holder.looked_at == before.looked_at
        path.write_bytes(content)
        await holder.look()
        assert holder.problem is None


async def test_it_looks_by_itself_until_it_is_stopped(world: World) -> None:
    world.config = config_of(Path(world.store.root).parent, serving={"cache": {"look_s": 0.001}})
    async with asyncio.timeout(60), world.holder() as holder:
        others = asyncio.all_tasks()
        await holder.start()
        world.index(BLUE)
        world.publish(BLUE)
        while holder.looked_at is None:
            await asyncio.sleep(0.001)
        first = served(holder)
        world.index(BLUE, "wiki")
        while set(served(holder).versions) != {"notes", "wiki"}:
            await asyncio.sleep(0.001)
        assert served(holder).index is first.index
        await holder.stop()
        assert asyncio.all_tasks() == others
