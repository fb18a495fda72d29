"""The cache of the service in a real Redis: told of removed documents by runs, and no harm when it is gone."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from rag_core.caching.invalidation import RedisInvalidation, caches_of
from rag_core.caching.redis_layout import DOCUMENTS_PER_CALL, RedisKeys, store_id
from rag_core.config_serving import CacheConfig, ServingConfig
from rag_core.errors import TransientError
from rag_core.index import lite_server
from rag_core.index.client import connect
from rag_core.tables.store import Store
from serving.cache.redis_cache import RedisCache
from serving.observability.metrics import Metrics
from tests.deletion_support import World, doc_id
from tests.index_support import CONFIG
from tests.redis_server import RedisServer, needs_redis, running_redis
from tests.unit.stages.generation_rows import config_of

pytestmark = [needs_redis, pytest.mark.anyio]

PATIENT_S = 20.0  # a busy machine must not pass for a Redis that is gone
STORE = Store("/srv/rag")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path) as server:
        yield server


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Opened:
    cache: RedisCache
    clock: Clock = field(default_factory=Clock)
    metrics: Metrics = field(default_factory=Metrics)

    @property
    def failures(self) -> float:
        labels = {"cache": "redis", "outcome": "error"}
        return self.metrics.registry.get_sample_value("rag_cache_requests_total", labels) or 0.0


@asynccontextmanager
async def opened(server: RedisServer, store: Store = STORE, timeout_s: float = PATIENT_S) -> AsyncIterator[Opened]:
    clock, metrics = Clock(), Metrics()
    cache = RedisCache(server.url, store_id(store), metrics, timeout_s=timeout_s, clock=clock)
    try:
        yield Opened(cache, clock, metrics)
    finally:
        await cache.close()


async def test_processes_share_entries_and_stores_do_not(server: RedisServer) -> None:
    async with opened(server) as one, opened(server) as two, opened(server, Store("/srv/other")) as other:
        await one.cache.set("key", b"\x00\xff", ttl_s=60)
        assert await two.cache.get("key") == b"\x00\xff"
        assert await two.cache.get("another") is None
        assert await other.cache.get("key") is None
        assert one.failures == two.failures == other.failures == 0


async def test_everything_expires(server: RedisServer) -> None:
    async with opened(server) as one, opened(server) as two:
        await one.cache.set("short", b"1", ttl_s=30, doc_ids=["d1"])
        await one.cache.set("long", b"2", ttl_s=90, doc_ids=["d1", "d2"])
        await two.cache.forget(["d3"])
        keys = RedisKeys(store_id(STORE))
        (of_d1, _), (of_d2, _), (_, gone_d3) = (keys.documents([name]) for name in ("d1", "d2", "d3"))
        with server.client() as client:
            assert set(client.zrange(of_d1, 0, -1)) == {keys.entry("short"), keys.entry("long")}
            assert 0 < client.ttl(keys.entry("short")) <= 30 < client.ttl(of_d1) <= 90
            assert 30 < client.ttl(of_d2) <= 90
            assert client.ttl(gone_d3) > 0
            assert all(client.ttl(key) > 0 for key in client.keys("*"))


async def test_what_has_expired_is_taken_from_the_index_of_a_document_that_is_found_often(server: RedisServer) -> None:
    async with opened(server) as one:
        await one.cache.set("first", b"1", ttl_s=0.001, doc_ids=["d1"])
        of_d1, _ = RedisKeys(store_id(STORE)).documents(["d1"])
        async with asyncio.timeout(PATIENT_S):
            while await one.cache.get("first") is not None:
                await asyncio.sleep(0)
        await one.cache.set("second", b"2", ttl_s=60, doc_ids=["d1"])
        with server.client() as client:
            assert client.zrange(of_d1, 0, -1) == [RedisKeys(store_id(STORE)).entry("second")]


async def test_a_run_forgets_exactly_what_was_made_of_a_document(server: RedisServer) -> None:
    async with opened(server) as one:
        await one.cache.set("one", b"1", ttl_s=60, doc_ids=["d1"])
        await one.cache.set("two", b"2", ttl_s=60, doc_ids=["d1", "d2", "d2"])
        await one.cache.set("three", b"3", ttl_s=60, doc_ids=["d2"])
        await one.cache.set("none", b"4", ttl_s=60)
        RedisInvalidation(server.url, STORE).forget(["d1", "unknown"])
        left = [key for key in ("one", "two", "three", "none") if await one.cache.get(key)]
        assert left == ["three", "none"]
        await one.cache.set("late", b"5", ttl_s=60, doc_ids=["d2", "d1"])  # of a search that began before
        assert await one.cache.get("late") is None
        RedisInvalidation(server.url, STORE).forget(["d1"])  # again, without effect
        assert await one.cache.forget(["d2"]) == 1


async def test_a_restored_store_forgets_all_that_was_made_of_it_before_and_no_other(server: RedisServer) -> None:
    async with opened(server) as one, opened(server, Store("/another")) as other:
        for cache in (one.cache, other.cache):
            await cache.set("key", b"1", ttl_s=60, doc_ids=["d1"])
        assert RedisInvalidation(server.url, STORE).forget_everything() == 2
        assert await one.cache.get("key") is None
        assert await other.cache.get("key") == b"1"


async def test_many_documents_are_forgotten(server: RedisServer) -> None:
    documents = [f"d{number}" for number in range(DOCUMENTS_PER_CALL + 1)]
    async with opened(server) as one:
        for name in (documents[0], documents[-1]):
            await one.cache.set(name, b"1", ttl_s=60, doc_ids=[name])
        await one.cache.set("of all", b"1", ttl_s=60, doc_ids=documents)
        assert await one.cache.forget(documents) == 3


async def test_a_redis_that_is_killed_is_a_miss_and_is_used_again_when_it_is_back(server: RedisServer) -> None:
    async with opened(server) as one:
        await one.cache.set("key", b"1", ttl_s=60)
        server.kill()
        assert await one.cache.get("key") is None
        await one.cache.set("key", b"1", ttl_s=60, doc_ids=["d1"])
        assert await one.cache.forget(["d1"]) == 0
        assert one.failures == 1  # it was not asked again
        with pytest.raises(TransientError, match=r"Redis .* was not told of 2 removed documents"):
            RedisInvalidation(server.url, STORE).forget(["d1", "d2"])
        server.start()
        assert await one.cache.get("key") is None
        one.clock.now += 2.0
        await one.cache.set("key", b"2", ttl_s=60)
        assert await one.cache.get("key") == b"2"
        assert one.failures == 1


async def test_a_redis_that_hangs_costs_one_time_limit(server: RedisServer) -> None:
    async with opened(server, timeout_s=0.05) as one:
        with server.frozen():
            assert await one.cache.get("key") is None
            assert await one.cache.get("key") is None
            assert one.failures == 1
    # No answer to an abandoned request is taken for the answer to a later one.
    async with opened(server) as one:
        await one.cache.set("a", b"of a", ttl_s=60)
        await one.cache.set("b", b"of b", ttl_s=60)
        with server.frozen():
            asked = asyncio.create_task(one.cache.get("a"))
            await asyncio.sleep(0.01)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
        assert await one.cache.get("b") == b"of b"


async def test_what_redis_refuses_is_a_miss(server: RedisServer) -> None:
    with server.client() as client:
        client.config_set("maxmemory", "1")
        async with opened(server) as one:
            await one.cache.set("key", b"1", ttl_s=60)
            assert one.failures == 1
            with pytest.raises(TransientError, match="OutOfMemory"):
                RedisInvalidation(server.url, STORE).forget(["d1"])


@pytest.mark.milvus
async def test_a_removal_has_its_receipt_once_redis_was_told(server: RedisServer, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "milvus"))
    with connect(CONFIG, store) as client:
        world = World(tmp_path, client)
        serving = ServingConfig(cache=CacheConfig(redis_url=server.url))
        generation = replace(world.generation, config=world.config.model_copy(update={"serving": serving}))
        world.have(dict.fromkeys(range(3), "ok"))
        world.index(generation=generation)
        async with opened(server, world.store) as one:
            await one.cache.set("of 1 and 2", b"1", ttl_s=60, doc_ids=[doc_id(1), doc_id(2)])
            await one.cache.set("of 0", b"0", ttl_s=60, doc_ids=[doc_id(0)])
            world.have({0: "ok", 1: "ok"})
            world.index(generation=generation)
            (receipt,) = world.receipts()
            assert receipt["caches_told_at"] >= receipt["verified_at"]
            assert await one.cache.get("of 1 and 2") is None
            assert await one.cache.get("of 0") == b"0"

            server.kill()
            world.have({0: "ok"})
            with pytest.raises(TransientError, match="Redis"):
                world.index(generation=generation)
            assert len(world.receipts()) == 1
            assert doc_id(1) in world.ledger()
            server.start()
            world.index(generation=generation)
            assert {row["doc_id"] for row in world.receipts() if row["caches_told_at"]} == {doc_id(1), doc_id(2)}
            assert doc_id(1) not in world.ledger()
    lite_server.stop(lite_server.lite_files(store))


def test_without_redis_nobody_is_told(server: RedisServer, tmp_path: Path) -> None:
    def told(cache: CacheConfig) -> object:
        serving = ServingConfig(cache=cache)
        return caches_of(config_of(tmp_path, serving=serving), STORE)

    assert told(CacheConfig()) is None
    assert told(CacheConfig(enabled=False, redis_url=server.url)) is None
    assert told(CacheConfig(redis_url=server.url)) is not None
