"""The cache in the process: bounded, and without anything that was made of a document that was forgotten."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rag_core.caching.redis_layout import GONE_S
from rag_core.config_serving import CacheConfig
from rag_core.errors import ConfigError
from serving.cache.base import NoCache, make_cache
from serving.cache.memory import MemoryCache
from serving.cache.redis_cache import RedisCache
from serving.observability.metrics import Metrics

MAX_BYTES = 5_000
KEYS = st.sampled_from("abcdefgh")
DOCUMENTS = st.lists(st.sampled_from(["d1", "d2", "d3"]), max_size=3)


class CacheMachine(RuleBasedStateMachine):
    """A cache beside a dictionary that forgets nothing by itself: what the cache has, the dictionary has too."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.cache = MemoryCache(MAX_BYTES, clock=lambda: self.now)
        self.model: dict[str, tuple[bytes, float, frozenset[str]]] = {}
        self.gone: dict[str, float] = {}

    def do(self, work: Any) -> Any:
        return asyncio.run(work)

    @rule(key=KEYS, size=st.integers(0, 6_000), ttl_s=st.integers(1, 900), documents=DOCUMENTS)
    def set(self, key: str, size: int, ttl_s: int, documents: list[str]) -> None:
        value = bytes([len(self.model) % 256]) * size
        self.do(self.cache.set(key, value, ttl_s=ttl_s, doc_ids=documents))
        self.model.pop(key, None)
        if not any(self.gone.get(name, -1.0) > self.now for name in documents):
            self.model[key] = (value, self.now + ttl_s, frozenset(documents))

    @rule(documents=DOCUMENTS)
    def forget(self, documents: list[str]) -> None:
        self.do(self.cache.forget(documents))
        self.model = {key: one for key, one in self.model.items() if not one[2] & set(documents)}
        self.gone.update(dict.fromkeys(documents, self.now + GONE_S))

    @rule(seconds=st.integers(1, 500))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule(key=KEYS)
    def get(self, key: str) -> None:
        found = self.do(self.cache.get(key))
        kept = self.model.get(key)
        assert found is None or (kept is not None and found == kept[0] and self.now < kept[1])

    @invariant()
    def it_is_bounded(self) -> None:
        assert 0 <= self.cache.size_bytes <= MAX_BYTES

    def teardown(self) -> None:
        # What nobody can find any more takes no place: forgetting everything leaves nothing.
        self.now += 10_000
        for key in "abcdefgh":
            assert self.do(self.cache.get(key)) is None
        assert self.cache.size_bytes == 0
        assert not self.cache._by_document


TestMemoryCache = CacheMachine.TestCase
TestMemoryCache.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


def cache_of(max_bytes: int = 1_000_000, clock: Callable[[], float] = lambda: 0.0) -> MemoryCache:
    return MemoryCache(max_bytes, clock=clock)


async def test_what_was_kept_is_found() -> None:
    cache = cache_of()
    await cache.set("a", b"1", ttl_s=10)
    await cache.set("a", b"2", ttl_s=10)
    assert await cache.get("a") == b"2"
    assert await cache.get("b") is None


async def test_what_was_used_longest_ago_goes_first() -> None:
    cache = cache_of(3 * 1_700)
    for key in "abc":
        await cache.set(key, b"x" * 1_000, ttl_s=10)
    await cache.get("a")
    await cache.set("d", b"x" * 1_000, ttl_s=10)
    assert [key for key in "abcd" if await cache.get(key)] == ["a", "c", "d"]


async def test_exactly_what_was_made_of_a_document_is_forgotten() -> None:
    cache = cache_of()
    await cache.set("one", b"1", ttl_s=10, doc_ids=["d1"])
    await cache.set("two", b"2", ttl_s=10, doc_ids=["d1", "d2", "d2"])
    await cache.set("three", b"3", ttl_s=10, doc_ids=["d2"])
    await cache.set("none", b"4", ttl_s=10)
    assert await cache.forget(["d1", "unknown"]) == 2
    assert [key for key in ("one", "two", "three", "none") if await cache.get(key)] == ["three", "none"]


async def test_a_search_that_began_before_the_removal_keeps_nothing() -> None:
    now = 0.0
    cache = cache_of(clock=lambda: now)
    await cache.forget(["d1"])
    await cache.set("late", b"1", ttl_s=10, doc_ids=["d1", "d2"])
    assert await cache.get("late") is None
    now = GONE_S + 1.0  # a document may come back
    await cache.set("late", b"1", ttl_s=10, doc_ids=["d1", "d2"])
    assert await cache.get("late") == b"1"


async def test_the_configuration_says_which_cache() -> None:
    metrics = Metrics()
    nothing = make_cache(CacheConfig(enabled=False, redis_url="redis://127.0.0.1"), "s", metrics)
    assert isinstance(nothing, NoCache)
    await nothing.set("a", b"1", ttl_s=10)
    assert await nothing.get("a") is None
    assert isinstance(make_cache(CacheConfig(), "s", metrics), MemoryCache)
    assert isinstance(make_cache(CacheConfig(redis_url="redis://127.0.0.1:1/0"), "s", metrics), RedisCache)
    with pytest.raises(ConfigError, match="not the address of a Redis") as error:
        make_cache(CacheConfig(redis_url="http://:geheim@127.0.0.1"), "s", metrics)
    assert "geheim" not in repr(error.value)


async def test_a_redis_that_is_not_there_is_a_miss_and_is_not_asked_each_time() -> None:
    now, metrics = 0.0, Metrics()
    config = CacheConfig(redis_url="redis://127.0.0.1:1/0")
    assert config.redis_url is not None
    cache = RedisCache(config.redis_url, "s", metrics, timeout_s=5.0, clock=lambda: now)

    def failures() -> float | None:
        return metrics.registry.get_sample_value("rag_cache_requests_total", {"cache": "redis", "outcome": "error"})

    assert await cache.get("a") is None
    await cache.set("a", b"1", ttl_s=10, doc_ids=["d1"])
    assert await cache.forget(["d1"]) == 0
    assert failures() == 1
    now = 2.0
    assert await cache.get("a") is None
    assert failures() == 2
    await cache.close()
