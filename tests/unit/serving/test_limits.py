"""Admission: each reason for being sent away, what is counted, and how it ends."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest
from pydantic import SecretStr

from rag_core.config_serving import LimitsConfig
from rag_core.errors import ConfigError
from serving.caller import Caller
from serving.errors import ApiError
from serving.limits.admission import Admission
from serving.limits.rate import RateLimits
from serving.observability.metrics import Metrics

ANN, BEN = Caller("user:ann"), Caller("user:ben")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


def admission_of(**limits: float) -> tuple[Admission, Callable[..., float]]:
    metrics = Metrics()

    def value(name: str, **labels: str) -> float:
        return metrics.registry.get_sample_value(name, labels) or 0.0

    return Admission(LimitsConfig.model_validate(limits), metrics, None), value


async def refusal(admission: Admission, caller: Caller = ANN) -> ApiError:
    with pytest.raises(ApiError) as caught:
        async with admission.admit(caller):
            pytest.fail("was let in")
    assert int(caught.value.all_headers()["Retry-After"]) >= 1
    return caught.value


@pytest.mark.anyio
async def test_too_often_is_429_for_that_caller_only() -> None:
    admission, value = admission_of(requests_per_minute=3)
    for _ in range(3):
        async with admission.admit(ANN):
            pass
    error = await refusal(admission)
    assert (error.status, error.code) == (429, "too_many_requests")
    assert error.retry_after_s is not None
    assert 50 < error.retry_after_s <= 60
    async with admission.admit(BEN):
        pass
    assert value("http_requests_rejected_total", reason="rate") == 1


@pytest.mark.anyio
async def test_too_much_at_once_is_429_for_that_caller_only() -> None:
    admission, value = admission_of(concurrent=2)
    async with AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(admission.admit(ANN))
        error = await refusal(admission)
        assert (error.status, error.code) == (429, "too_many_at_once")
        async with admission.admit(BEN):
            assert value("http_requests_in_flight") == 3
    async with admission.admit(ANN):
        pass
    assert value("http_requests_rejected_total", reason="concurrency") == 1
    assert value("http_requests_in_flight") == 0


@pytest.mark.anyio
async def test_those_who_wait_count_for_their_caller() -> None:
    admission, value = admission_of(concurrent=2, in_flight=1, wait_s=60)
    async with admission.admit(BEN):
        waiting = [asyncio.create_task(_ask(admission, ANN)) for _ in range(2)]
        while value("http_requests_waiting") < 2:
            await asyncio.sleep(0)
        assert (await refusal(admission)).code == "too_many_at_once"
    await asyncio.gather(*waiting)


async def _ask(admission: Admission, caller: Caller) -> None:
    async with admission.admit(caller):
        pass


@pytest.mark.anyio
async def test_a_full_queue_is_503_at_once() -> None:
    admission, value = admission_of(in_flight=1, waiting=1, wait_s=60)
    async with admission.admit(ANN):
        waiting = asyncio.create_task(_ask(admission, ANN))
        while not value("http_requests_waiting"):
            await asyncio.sleep(0)
        error = await refusal(admission, BEN)
        assert (error.status, error.code) == (503, "overloaded")
    await waiting
    assert value("http_requests_rejected_total", reason="queue_full") == 1
    assert value("http_requests_waiting") == 0


@pytest.mark.anyio
async def test_a_long_wait_is_503() -> None:
    admission, value = admission_of(in_flight=1, wait_s=0.001)
    async with admission.admit(ANN):
        error = await refusal(admission, BEN)
        assert (error.status, error.code) == (503, "overloaded")
    assert value("http_requests_rejected_total", reason="wait") == 1
    assert value("http_requests_waiting") == 0
    await _ask(admission, BEN)


@pytest.mark.anyio
async def test_draining_waits_for_those_inside_and_for_those_who_wait() -> None:
    admission, value = admission_of(in_flight=1, wait_s=60)
    leave = asyncio.Event()
    entered = asyncio.Event()

    async def stay() -> None:
        async with admission.admit(ANN):
            entered.set()
            await leave.wait()

    inside = asyncio.create_task(stay())
    await entered.wait()
    waiting = asyncio.create_task(_ask(admission, BEN))
    while not value("http_requests_waiting"):
        await asyncio.sleep(0)
    assert not await admission.drain(0.001)
    error = await refusal(admission)
    assert (error.status, error.code) == (503, "stopping")
    assert value("http_requests_rejected_total", reason="draining") == 1
    draining = asyncio.create_task(admission.drain(60))
    leave.set()
    assert await draining
    await asyncio.gather(inside, waiting)


@pytest.mark.anyio
async def test_nobody_stays_counted_when_requests_fail_or_are_cancelled() -> None:
    admission, value = admission_of(in_flight=2, concurrent=3, wait_s=60)
    inside = asyncio.Event()

    async def fail() -> None:
        async with admission.admit(ANN):
            raise ValueError

    async def stay() -> None:
        async with admission.admit(ANN):
            inside.set()
            await asyncio.Event().wait()

    for _ in range(5):
        with pytest.raises(ValueError):
            await fail()
    tasks = [asyncio.create_task(stay()) for _ in range(3)]
    while not value("http_requests_waiting"):
        await asyncio.sleep(0)
    for task in reversed(tasks):
        task.cancel()
    await asyncio.wait(tasks)
    assert value("http_requests_in_flight") == value("http_requests_waiting") == 0
    assert await admission.drain(0.001)


@pytest.mark.anyio
async def test_the_time_to_come_back_grows_with_the_work_that_waits() -> None:
    admission, value = admission_of(in_flight=1, waiting=2, wait_s=60, concurrent=100)
    admission._mean_s = 4.0
    async with admission.admit(ANN):
        waiting = [asyncio.create_task(_ask(admission, ANN)) for _ in range(2)]
        while value("http_requests_waiting") < 2:
            await asyncio.sleep(0)
        assert (await refusal(admission)).retry_after_s == 12.0
        admission._mean_s = 400.0
        assert (await refusal(admission)).retry_after_s == 30.0
        admission._mean_s = 0.0
    await asyncio.gather(*waiting)


@pytest.mark.anyio
async def test_a_redis_that_is_not_there_limits_in_the_process(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    rates = RateLimits(2, SecretStr("redis://127.0.0.1:1/0"), clock=lambda: now)
    assert [await rates.hit("ann") is None for _ in range(3)] == [True, True, False]
    now = 6.0
    assert await rates.hit("ben") is None
    assert len(caplog.records) == 1  # though it was tried twice
    await rates.close()


@pytest.mark.parametrize("url", ["localhost:6379", "http://localhost", "redis://localhost:port"])
def test_an_address_that_is_not_one_is_said_so_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match=r"serving\.cache\.redis_url: expected redis://") as caught:
        RateLimits(1, SecretStr(url))
    assert url not in str(caught.value)
