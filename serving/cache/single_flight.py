"""Equal work that is asked for at the same time is done once."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Flight:
    task: asyncio.Task[Any]
    waiting: int = 0


class SingleFlight:
    """Shares the work of concurrent callers who name it alike. For one event loop."""

    def __init__(self) -> None:
        self._flights: dict[str, _Flight] = {}
        self._ending: set[asyncio.Task[Any]] = set()  # the loop itself holds tasks by weak references only

    async def run(self, key: str, work: Callable[[], Awaitable[T]]) -> tuple[T, bool]:
        """Do the work, or wait for the one who is at it.

        A caller that is cancelled leaves the work to the others; with the last one it is cancelled too.

        Args:
            key: Names the work; equal keys must mean equal results.
            work: Does it, in a task of its own, in the context of the first caller.

        Returns:
            The result, and whether another caller had begun it.

        Raises:
            Exception: What the work raised, to each of the callers.
        """
        flight = self._flights.get(key)
        shared = flight is not None
        if flight is None:
            flight = self._flights[key] = _Flight(asyncio.ensure_future(_awaited(work)))
            flight.task.add_done_callback(lambda _: self._land(key, flight))
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task), shared
        finally:
            flight.waiting -= 1
            if flight.waiting == 0 and not flight.task.done():
                flight.task.cancel()
                self._ending.add(flight.task)
                flight.task.add_done_callback(self._ending.discard)
                self._land(key, flight)  # who comes now must not wait for work that is being cancelled

    def _land(self, key: str, flight: _Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
        if flight.task.done() and not flight.task.cancelled():
            flight.task.exception()  # all who waited may be gone: it is not to be reported as never retrieved


async def _awaited(work: Callable[[], Awaitable[T]]) -> T:
    return await work()
