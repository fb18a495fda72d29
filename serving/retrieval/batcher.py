"""Requests of many callers worked on together: while one batch is under way, the next gathers.

Nobody waits for a batch to fill: what comes while nothing is under way begins at once, as a batch of one.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from rag_core.errors import PermanentError
from serving.observability.metrics import Metrics

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass
class _Waiting(Generic[Item, Result]):
    item: Item
    done: "asyncio.Future[Result]"


class Batcher(Generic[Item, Result]):
    """For one event loop.

    Args:
        name: Of the stage, for metrics.
        work: Does what a batch of one group asks, and returns the results in its order.
        most: Items in a batch.
        at_once: Batches under way.
        metrics: Told of sizes.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        most: int,
        at_once: int,
        metrics: Metrics,
    ) -> None:
        self._name = name
        self._work = work
        self._most = most
        self._at_once = at_once
        self._metrics = metrics
        self._groups: OrderedDict[Hashable, deque[_Waiting[Item, Result]]] = OrderedDict()
        self._under_way: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """Items that no batch has taken yet."""
        return sum(len(group) for group in self._groups.values())

    async def submit(self, item: Item, group: Hashable = None) -> Result:
        """Have an item worked on, together with others of its group.

        Raises:
            Whatever the work raises. A permanent error of a batch is that of the item which causes it alone.
        """
        one: _Waiting[Item, Result] = _Waiting(item, asyncio.get_running_loop().create_future())
        self._groups.setdefault(group, deque()).append(one)
        self._begin()
        return await one.done

    async def close(self) -> None:
        """End what is under way; whoever waits is cancelled."""
        tasks = list(self._under_way)
        for group in self._groups.values():
            for one in group:
                one.done.cancel()
        self._groups.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self) -> None:
        while self._groups and len(self._under_way) < self._at_once:
            name, group = self._groups.popitem(last=False)  # the group that waits longest
            batch: list[_Waiting[Item, Result]] = []
            while group and len(batch) < self._most:
                one = group.popleft()
                if not one.done.done():  # its caller has gone
                    batch.append(one)
            if group:
                self._groups[name] = group  # behind the others, so that none waits for ever
            if batch:
                task = asyncio.create_task(self._run(batch), name=f"batch {self._name}")
                self._under_way.add(task)
                task.add_done_callback(partial(self._ended, batch))

    def _ended(self, batch: Sequence[_Waiting[Item, Result]], task: "asyncio.Task[None]") -> None:
        self._under_way.discard(task)
        for one in batch:
            one.done.cancel()  # of those without a result, if the task was cancelled, be it before its first step
        self._begin()

    async def _run(self, batch: list[_Waiting[Item, Result]]) -> None:
        self._metrics.batch_size.labels(self._name).observe(len(batch))
        try:
            results = await self._work([one.item for one in batch])
            answered = list(zip(batch, results, strict=True))
        except PermanentError as error:
            if len(batch) == 1:
                _fail(batch, error)
                return
            for one in batch:  # the error is of one of them, and must not be that of the others
                if not one.done.done():
                    await self._run([one])
        except Exception as error:  # noqa: BLE001 -- it belongs to those who wait
            _fail(batch, error)
        else:
            for one, result in answered:
                if not one.done.done():
                    one.done.set_result(result)


def _fail(batch: Sequence[_Waiting[Item, Result]], error: Exception) -> None:
    for one in batch:
        if not one.done.done():
            one.done.set_exception(error)
