"""Who is using an index: one that was replaced is given up after the last request that began with it."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from rag_core.retrieval.served import ServedIndex


class IndexUsers:
    """Counts the requests that use each index. For one event loop."""

    def __init__(self) -> None:
        self._counts: Counter[ServedIndex] = Counter()
        self._unused: dict[ServedIndex, asyncio.Event] = {}

    @contextmanager
    def using(self, index: ServedIndex) -> Iterator[None]:
        """Count one user while the block runs."""
        self._counts[index] += 1
        try:
            yield
        finally:
            self._counts[index] -= 1
            if not self._counts[index]:
                del self._counts[index]  # with the last reference, so that model and statistics are freed
                if waiting := self._unused.pop(index, None):
                    waiting.set()

    async def none_of(self, index: ServedIndex) -> None:
        """Return once nobody uses an index; of one that is still served somebody may again the moment after."""
        while self._counts[index]:
            await self._unused.setdefault(index, asyncio.Event()).wait()
        # Reading a Counter adds nothing to it.
