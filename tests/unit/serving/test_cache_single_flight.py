"""Equal work at the same time is done once, and nothing of it is left behind."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.cache.single_flight import SingleFlight

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


class Work:
    """Work that ends when it is told to, and counts."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.go_on = asyncio.Event()
        self.begun = 0
        self.cancelled = 0

    async def __call__(self) -> str:
        self.begun += 1
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error:
            raise self.error
        return f"result {self.begun}"


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_equal_keys_share_work_and_others_do_not() -> None:
    flights, work, other = SingleFlight(), Work(), Work()
    tasks = [asyncio.create_task(flights.run(key, one)) for key, one in [("a", work), ("a", work), ("b", other)]]
    await settle()
    assert (work.begun, other.begun) == (1, 1)
    work.go_on.set()
    other.go_on.set()
    assert await asyncio.gather(*tasks) == [("result 1", False), ("result 1", True), ("result 1", False)]
    assert not flights._flights
    assert await flights.run("a", work) == ("result 2", False)  # later, it is done again


async def test_an_error_is_everybody_s() -> None:
    flights, work = SingleFlight(), Work(ValueError("broken"))
    tasks = [asyncio.create_task(flights.run("a", work)) for _ in range(3)]
    await settle()
    work.go_on.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(one) for one in results] == ["broken"] * 3
    assert not flights._flights


async def test_one_that_is_cancelled_leaves_the_work_to_the_others() -> None:
    flights, work = SingleFlight(), Work()
    first, second = (asyncio.create_task(flights.run("a", work)) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    assert first.cancelled()
    work.go_on.set()
    assert await second == ("result 1", True)
    assert work.cancelled == 0


async def test_with_the_last_the_work_is_cancelled_and_nobody_joins_it() -> None:
    flights, work, anew = SingleFlight(), Work(), Work()
    first, second = (asyncio.create_task(flights.run("a", work)) for _ in range(2))
    await settle()
    first.cancel()
    second.cancel()
    await asyncio.sleep(0)
    third = asyncio.create_task(flights.run("a", anew))
    await settle()
    assert (work.cancelled, anew.begun) == (1, 1)
    anew.go_on.set()
    assert await third == ("result 1", False)
    assert not flights._flights
    assert not flights._ending


async def test_work_that_fails_while_it_is_cancelled_is_not_reported_as_forgotten() -> None:
    reported: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["message"]))

    async def clumsy() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("while cleaning up")

    flights = SingleFlight()
    task = asyncio.create_task(flights.run("a", clumsy))
    await settle()
    task.cancel()
    await settle()
    assert task.cancelled()
    assert reported == []
    assert not flights._ending


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), min_size=1, max_size=12))
def test_each_key_is_worked_on_once(callers: list[tuple[str, bool]]) -> None:
    """Callers of a few keys at the same time, some of whom are cancelled."""

    async def scenario() -> None:
        flights, begun, go_on = SingleFlight(), Counter[str](), asyncio.Event()

        async def work(key: str) -> str:
            begun[key] += 1
            await go_on.wait()
            return key.upper()

        tasks = [asyncio.create_task(flights.run(key, lambda key=key: work(key))) for key, _ in callers]
        await settle()
        assert begun == Counter({key for key, _ in callers})
        for task, (_, is_cancelled) in zip(tasks, callers, strict=True):
            if is_cancelled:
                task.cancel()
        await settle()
        go_on.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for result, (key, is_cancelled) in zip(results, callers, strict=True):
            assert isinstance(result, asyncio.CancelledError) if is_cancelled else result[0] == key.upper()
        assert begun == Counter({key for key, _ in callers})
        assert not flights._flights

    asyncio.run(scenario())
