"""Everybody gets their own result, whoever else is in the batch, fails, or goes away."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_core.errors import PermanentError, TransientError
from serving.observability.metrics import Metrics
from serving.retrieval.batcher import Batcher

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Work:
    """Doubles numbers; remembers its batches, and waits while it is held."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def __call__(self, batch: Sequence[int]) -> list[int]:
        self.batches.append(list(batch))
        await self.go_on.wait()
        if -1 in batch:
            raise PermanentError("-1 cannot be doubled")
        if -2 in batch:
            raise TransientError("not now")
        return [2 * item for item in batch]


def batcher(work: Work, *, most: int = 4, at_once: int = 1) -> Batcher[int, int]:
    return Batcher("embed", work, most=most, at_once=at_once, metrics=Metrics())


@given(
    arrivals=st.lists(st.tuples(st.integers(0, 50), st.sampled_from("ab"), st.integers(0, 3)), max_size=40),
    most=st.integers(1, 5),
    at_once=st.integers(1, 3),
)
@settings(deadline=None, max_examples=50)
def test_each_gets_its_own(arrivals: list[tuple[int, str, int]], most: int, at_once: int) -> None:
    async def run() -> Work:
        work = Work()
        made = batcher(work, most=most, at_once=at_once)

        async def one(item: int, group: str, turns: int) -> int:
            for _ in range(turns):
                await asyncio.sleep(0)
            return await made.submit(item + (1_000 if group == "b" else 0), group)

        results = await asyncio.gather(*(one(*arrival) for arrival in arrivals))
        assert results == [2 * (item + (1_000 if group == "b" else 0)) for item, group, _ in arrivals]
        return work

    work = asyncio.run(run())
    assert sum(map(len, work.batches)) == len(arrivals)
    assert all(len(batch) <= most for batch in work.batches)
    assert all(len({item >= 1_000 for item in batch}) == 1 for batch in work.batches), "groups are not mixed"


async def test_the_first_goes_at_once_and_the_others_together() -> None:
    work = Work()
    work.go_on.clear()
    made = batcher(work, most=3)
    tasks = [asyncio.create_task(made.submit(item)) for item in range(6)]
    while not work.batches:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert made.waiting == 5
    work.go_on.set()
    assert await asyncio.gather(*tasks) == [0, 2, 4, 6, 8, 10]
    assert work.batches == [[0], [1, 2, 3], [4, 5]]


async def test_a_permanent_error_is_of_the_one_that_causes_it() -> None:
    work = Work()
    work.go_on.clear()
    made = batcher(work)
    tasks = [asyncio.create_task(made.submit(item)) for item in (1, 2, -1, 3)]
    await asyncio.sleep(0)
    work.go_on.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [results[at] for at in (0, 1, 3)] == [2, 4, 6]
    assert isinstance(results[2], PermanentError)


async def test_a_passing_error_is_of_the_whole_batch_and_of_no_other() -> None:
    work = Work()
    work.go_on.clear()
    made = batcher(work, most=2)
    tasks = [asyncio.create_task(made.submit(item)) for item in (1, -2, 2, 3, 4)]
    await asyncio.sleep(0)
    work.go_on.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert work.batches == [[1], [-2, 2], [3, 4]]
    assert [isinstance(result, TransientError) for result in results] == [False, True, True, False, False]


async def test_one_who_goes_away_takes_no_other_along() -> None:
    work = Work()
    work.go_on.clear()
    made = batcher(work)
    tasks = [asyncio.create_task(made.submit(item)) for item in range(4)]
    await asyncio.sleep(0)
    tasks[0].cancel()  # its batch is under way
    tasks[2].cancel()  # it waits
    await asyncio.sleep(0)
    work.go_on.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [results[1], results[3]] == [2, 6]
    assert work.batches == [[0], [1, 3]]


async def test_who_waits_when_it_closes_is_let_go() -> None:
    work = Work()
    work.go_on.clear()
    made = batcher(work)
    tasks = [asyncio.create_task(made.submit(item)) for item in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await made.close()
    done, waiting = await asyncio.wait(tasks, timeout=5)
    assert not waiting
    assert all(task.cancelled() for task in done)


async def test_who_waits_when_it_closes_before_a_batch_has_begun_is_let_go() -> None:
    made = batcher(Work())
    waiting = asyncio.create_task(made.submit(1))
    await asyncio.sleep(0)  # it has submitted; the task of its batch has not had its turn
    await made.close()
    done, _ = await asyncio.wait([waiting], timeout=5)
    assert done
    assert waiting.cancelled()


async def test_who_waits_when_it_closes_while_a_batch_is_asked_one_by_one_is_let_go() -> None:
    alone = asyncio.Event()

    async def work(batch: Sequence[int]) -> list[int]:
        if len(batch) > 1:
            raise PermanentError("one of them")
        if batch[0]:
            alone.set()
            await asyncio.Event().wait()
        return list(batch)

    made = Batcher[int, int]("embed", work, most=4, at_once=1, metrics=Metrics())
    tasks = [asyncio.create_task(made.submit(item)) for item in range(4)]
    await asyncio.wait_for(alone.wait(), 5)
    await made.close()
    done, _ = await asyncio.wait(tasks, timeout=5)
    assert len(done) == 4
    assert [task.cancelled() for task in tasks] == [False, True, True, True]


async def test_too_few_results_are_an_error_of_those_who_wait() -> None:
    async def work(batch: Sequence[int]) -> list[int]:
        return list(batch)[1:]

    made = Batcher[int, int]("embed", work, most=4, at_once=1, metrics=Metrics())
    with pytest.raises(ValueError, match="shorter"):
        await asyncio.wait_for(made.submit(1), 5)


async def test_who_has_gone_is_not_asked_for_again() -> None:
    work = Work()
    work.go_on.clear()
    made = batcher(work, at_once=1)
    tasks = [asyncio.create_task(made.submit(item)) for item in (0, 1, -1, 2)]
    await asyncio.sleep(0)
    work.go_on.set()
    await tasks[0]
    work.go_on.clear()
    while len(work.batches) < 2:
        await asyncio.sleep(0)
    tasks[1].cancel()  # the batch that fails is under way
    await asyncio.sleep(0)
    work.go_on.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert work.batches == [[0], [1, -1, 2], [-1], [2]]
    assert isinstance(results[2], PermanentError)
    assert results[3] == 4
