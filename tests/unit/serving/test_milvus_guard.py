"""Requests to Milvus: bounded in time and in threads, and left alone after failures."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from rag_core.config_serving import RetrievalConfig
from rag_core.errors import PermanentError, TransientError
from serving import milvus_guard
from serving.milvus_guard import MilvusGuard, MilvusUnavailable
from serving.observability.metrics import Metrics

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(milvus_guard, "time", clock)
    return clock


@pytest.fixture
def hanging() -> Iterator[threading.Event]:
    """What hanging requests wait for; set at the end, so that no thread is left."""
    event = threading.Event()
    yield event
    event.set()


def guard_of(metrics: Metrics, *, failures: int = 3, threads: int = 2) -> MilvusGuard:
    return MilvusGuard(RetrievalConfig(breaker_failures=failures, breaker_reset_s=5.0), metrics, threads=threads)


def errors(metrics: Metrics, kind: str) -> float:
    return metrics.registry.get_sample_value("rag_milvus_errors_total", {"kind": kind}) or 0.0


def is_open(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("rag_milvus_breaker_open")


def fail() -> None:
    raise TransientError("unreachable")


def refuse() -> None:
    raise PermanentError("no such collection")


async def fails(guard: MilvusGuard, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(MilvusUnavailable):
            await guard.call(fail)


async def test_a_result_comes_from_another_thread() -> None:
    guard = guard_of(Metrics())
    assert await guard.call(threading.get_ident) != threading.get_ident()
    await guard.close()


async def test_after_failures_in_a_row_milvus_is_left_alone(clock: Clock) -> None:
    metrics = Metrics()
    guard = guard_of(metrics)
    await fails(guard, 2)
    assert await guard.call(lambda: 1) == 1  # in a row
    await fails(guard, 3)
    assert guard.is_open
    assert is_open(metrics) == 1
    clock.now += 2.0
    asked: list[int] = []
    with pytest.raises(MilvusUnavailable) as refused:
        await guard.call(lambda: asked.append(1))
    assert not asked
    assert refused.value.retry_after_s == pytest.approx(3.0)
    assert (errors(metrics, "transient"), errors(metrics, "open")) == (5, 1)


async def test_then_one_request_tries_and_the_others_wait_for_what_it_finds(clock: Clock) -> None:
    metrics = Metrics()
    guard = guard_of(metrics, failures=1)
    await fails(guard)
    clock.now += 5.0
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> str:
        begun.set()
        go_on.wait(30)
        return "back"

    trial = asyncio.create_task(guard.call(slow))
    await asyncio.to_thread(begun.wait, 30)
    with pytest.raises(MilvusUnavailable, match="being tried"):
        await guard.call(lambda: 1)
    go_on.set()
    assert await trial == "back"
    assert await guard.call(lambda: 1) == 1
    assert is_open(metrics) == 0


async def test_a_trial_that_fails_is_another_pause(clock: Clock) -> None:
    guard = guard_of(Metrics())
    await fails(guard, 3)
    clock.now += 5.0
    await fails(guard)  # one is enough
    assert guard.is_open
    clock.now += 4.9
    with pytest.raises(MilvusUnavailable, match="left alone"):
        await guard.call(lambda: 1)
    clock.now += 0.2
    assert await guard.call(lambda: 1) == 1


async def test_a_trial_that_is_cancelled_leaves_the_trial_to_the_next(clock: Clock, hanging: threading.Event) -> None:
    guard = guard_of(Metrics(), failures=1)
    await fails(guard)
    clock.now += 5.0
    begun = threading.Event()

    def hang() -> None:
        begun.set()
        hanging.wait()

    trial = asyncio.create_task(guard.call(hang))
    await asyncio.to_thread(begun.wait, 30)
    trial.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trial
    await fails(guard)  # it was let through, and is the trial: it opens the breaker again
    assert guard.is_open


async def test_a_request_that_can_never_succeed_is_no_failure_of_milvus() -> None:
    metrics = Metrics()
    guard = guard_of(metrics)
    for _ in range(10):
        with pytest.raises(PermanentError, match="no such collection"):
            await guard.call(refuse)
    assert not guard.is_open
    assert errors(metrics, "permanent") == 10


async def test_a_bug_is_raised_as_it_is() -> None:
    guard = guard_of(Metrics())
    with pytest.raises(KeyError):
        await guard.call(lambda: {}["x"])
    assert not guard.is_open


async def test_threads_that_hang_make_calls_fail_at_once_until_they_return(hanging: threading.Event) -> None:
    metrics = Metrics()
    guard = guard_of(metrics, failures=100, threads=2)
    for _ in range(2):
        with pytest.raises(MilvusUnavailable, match="did not answer"):
            await guard.call(hanging.wait, timeout_s=0.01)
    async with asyncio.timeout(60):
        with pytest.raises(MilvusUnavailable, match="no request to Milvus has returned"):
            await guard.call(lambda: 1, timeout_s=3600)
    assert (errors(metrics, "timeout"), errors(metrics, "busy")) == (2, 1)
    hanging.set()
    async with asyncio.timeout(60):
        while guard._lost:  # the threads return
            await asyncio.sleep(0)
    assert await guard.call(lambda: 1) == 1


async def test_a_call_that_found_no_thread_is_no_failure_of_milvus(hanging: threading.Event) -> None:
    metrics = Metrics()
    guard = guard_of(metrics, failures=1, threads=1)
    begun = threading.Event()

    def hang() -> None:
        begun.set()
        hanging.wait()

    first = asyncio.create_task(guard.call(hang, timeout_s=3600))
    await asyncio.to_thread(begun.wait, 30)
    with pytest.raises(MilvusUnavailable, match="no thread was free"):
        await guard.call(lambda: 1, timeout_s=0.01)
    assert not guard.is_open
    hanging.set()
    await first


async def test_timeouts_open_the_breaker(hanging: threading.Event) -> None:
    guard = guard_of(Metrics(), failures=2, threads=4)
    for _ in range(2):
        with pytest.raises(MilvusUnavailable):
            await guard.call(hanging.wait, timeout_s=0.01)
    assert guard.is_open
