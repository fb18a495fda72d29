"""Places: never more inside than there are, first come first served, and nobody is lost, whatever is cancelled when."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.limits.places import Places, QueueFullError, WaitedTooLongError

LONG_S = 60.0


async def settle() -> None:
    """Let every task run until it waits for somebody else."""
    for _ in range(6):
        await asyncio.sleep(0)


class Crowd:
    """Requests that come, stay, leave and go away."""

    def __init__(self, count: int, waiting: int) -> None:
        self.count, self.most_waiting = count, waiting
        self.places = Places(count, waiting)
        self.tasks: list[asyncio.Task[str]] = []
        self.ends: list[asyncio.Event] = []
        self.inside: set[int] = set()
        self.entered: list[int] = []

    def come(self) -> None:
        self.ends.append(asyncio.Event())
        self.tasks.append(asyncio.create_task(self._request(len(self.tasks))))

    async def _request(self, number: int) -> str:
        try:
            await self.places.enter(LONG_S)
        except QueueFullError:
            return "sent away"
        self.entered.append(number)
        self.inside.add(number)
        try:
            await self.ends[number].wait()
        finally:
            self.inside.remove(number)
            self.places.leave()
        return "served"

    def check(self) -> None:
        waiting = [number for number, task in enumerate(self.tasks) if not task.done() and number not in self.inside]
        assert len(self.inside) == self.places.taken <= self.count
        assert len(waiting) == self.places.waiting <= self.most_waiting
        assert not waiting or len(self.inside) == self.count, "somebody waits although a place is free"
        assert self.entered == sorted(self.entered), "somebody was overtaken"

    async def end(self) -> None:
        for end in self.ends:
            end.set()
        outcomes = await asyncio.gather(*self.tasks, return_exceptions=True)
        assert all(
            outcome in ("served", "sent away") or isinstance(outcome, asyncio.CancelledError) for outcome in outcomes
        )
        assert (self.places.taken, self.places.waiting) == (0, 0)


STEPS = st.lists(
    st.tuples(st.sampled_from(["come", "come", "end", "cancel"]), st.integers(0, 30), st.booleans()), max_size=60
)


@given(st.integers(1, 4), st.integers(0, 4), STEPS)
def test_whatever_happens_in_whatever_order(count: int, waiting: int, steps: Sequence[tuple[str, int, bool]]) -> None:
    async def play() -> None:
        crowd = Crowd(count, waiting)
        for what, which, at_once in steps:
            if what == "come":
                crowd.come()
            elif crowd.tasks:
                number = which % len(crowd.tasks)
                crowd.ends[number].set() if what == "end" else crowd.tasks[number].cancel()
            if not at_once:  # else the next step comes before anybody noticed this one
                await settle()
                crowd.check()
        await settle()
        crowd.check()
        await crowd.end()

    asyncio.run(play())


def test_a_place_that_is_handed_to_one_who_just_went_away_goes_on_to_the_next() -> None:
    async def play() -> None:
        places = Places(1, 2)
        await places.enter(LONG_S)
        second, third = (asyncio.create_task(places.enter(LONG_S)) for _ in range(2))
        await settle()
        places.leave()  # it is the second one's turn, who does not know it yet
        second.cancel()
        await settle()
        assert second.cancelled()
        assert third.done()
        assert (places.taken, places.waiting) == (1, 0)

    asyncio.run(play())


def test_who_waited_too_long_is_out_of_the_queue() -> None:
    async def play() -> None:
        places = Places(1, 1)
        await places.enter(LONG_S)
        with pytest.raises(WaitedTooLongError):
            await places.enter(0.001)
        assert (places.taken, places.waiting) == (1, 0)
        places.leave()
        assert places.taken == 0

    asyncio.run(play())
