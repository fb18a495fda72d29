"""Rate limits over a real Redis: shared by processes, and survived when it goes away and comes back."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from serving.limits.rate import RateLimits

pytestmark = [
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed"),
    pytest.mark.anyio,
]

PATIENT_S = 20.0  # a busy machine must not pass for a Redis that is gone


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


class Server:
    """A Redis that can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> SecretStr:
        return SecretStr(f"redis://127.0.0.1:{self.port}/0")

    def start(self) -> None:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder)]
        self.process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        with Redis(port=self.port) as client:
            while True:
                try:
                    client.ping()
                    return
                except RedisConnectionError:
                    assert time.monotonic() < deadline, "redis-server did not start"
                    time.sleep(0.02)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    server.start()
    try:
        yield server
    finally:
        server.stop()


async def test_processes_share_the_limit_of_a_caller(server: Server) -> None:
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


async def test_what_is_kept_ends_by_itself(server: Server) -> None:
    rates = RateLimits(3, server.url, redis_timeout_s=PATIENT_S)
    await rates.hit("ann")
    with Redis(port=server.port) as client:
        (key,) = client.keys("*")
        assert key.startswith(b"rag:limits:")
        assert 0 < client.ttl(key) <= 60
    await rates.close()


async def test_a_redis_that_goes_away_refuses_nobody_and_is_used_again(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="serving.limits.rate")
    now = 0.0
    rates = RateLimits(2, server.url, redis_timeout_s=PATIENT_S, clock=lambda: now)
    assert [await rates.hit("ann") is None for _ in range(3)] == [True, True, False]
    server.stop()
    assert [await rates.hit("ann") is None for _ in range(3)] == [True, True, False]  # counted here, from nothing
    now = 6.0
    server.start()  # it has forgotten everything
    assert [await rates.hit("ann") is None for _ in range(3)] == [True, True, False]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    await rates.close()
