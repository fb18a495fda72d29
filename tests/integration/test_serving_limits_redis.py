"""Rate limits over a real Redis: shared by processes, and survived when it goes away and comes back."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.limits.rate import RateLimits
from tests.redis_server import RedisServer, needs_redis, running_redis

pytestmark = [
    needs_redis,
    pytest.mark.anyio,
]

PATIENT_S = 20.0  # a busy machine must not pass for a Redis that is gone


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path) as server:
        yield server


async def test_processes_share_the_limit_of_a_caller(server: RedisServer) -> None:
    first, second = (
        RateLimits(3, server.url, redis_timeout_s=PATIENT_S),
        RateLimits(3, server.url, redis_timeout_s=PATIENT_S),
    )
    passed = [await rates.hit("ann") is None for rates in (first, second, first, second)]
    assert passed == [True, True, True, False]
    wait_s = await first.hit("ann")
    assert wait_s is not None
    assert 0 < wait_s <= 60
    assert await second.hit("ben") is None
    await first.close()
    await second.close()


async def test_what_is_kept_ends_by_itself(server: RedisServer) -> None:
    rates = RateLimits(3, server.url, redis_timeout_s=PATIENT_S)
    await rates.hit("ann")
    with server.client() as client:
        (key,) = client.keys("*")
        assert key.startswith("rag:limits:")
        assert 0 < client.ttl(key) <= 60
    await rates.close()


async def test_a_redis_that_goes_away_refuses_nobody_and_is_used_again(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="serving.limits.rate")
    now = 0.0
    rates = RateLimits(2, server.url, redis_timeout_s=PATIENT_S, clock=lambda: now)
    assert [await rates.hit("ann") is None for _ in range(3)] == [True, True, False]
    server.kill()
    assert [await rates.hit("ann") is None for _ in range(3)] == [True, True, False]  # counted here, from nothing
    now = 6.0
    server.start()  # it has forgotten everything
    assert [await rates.hit("ann") is None for _ in range(3)] == [True, True, False]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    await rates.close()
