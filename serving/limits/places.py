"""Places for requests that are worked on, and a queue in front of them, first come, first served."""

import asyncio
from collections import deque


class QueueFullError(Exception):
    """So many wait that another one would only wait in vain."""


class WaitedTooLongError(Exception):
    """No place became free in time."""


class Places:
    """A semaphore whose queue has an end. Belongs to one event loop.

    A place that becomes free goes to whoever waits longest, without ever being free in between; so nobody who comes
    later takes it, and a waiter is neither forgotten nor woken for nothing.

    Attributes:
        taken: Places that are taken now.
    """

    def __init__(self, count: int, waiting: int) -> None:
        self.taken = 0
        self._count = count
        self._most_waiting = waiting
        self._queue: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._queue)

    async def enter(self, wait_s: float) -> None:
        """Take a place; call `leave` when done with it, and only then.

        Args:
            wait_s: Longest wait.

        Raises:
            QueueFullError: Too many wait already.
            WaitedTooLongError: None became free in time.
        """
        if self.taken < self._count:  # then nobody waits: a free place is handed on at once
            self.taken += 1
            return
        if len(self._queue) >= self._most_waiting:
            raise QueueFullError
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await asyncio.wait((turn,), timeout=wait_s)
        except asyncio.CancelledError:
            if turn.done():  # it was this one's turn in the moment it went away
                self.leave()
            else:
                self._queue.remove(turn)
            raise
        if not turn.done():
            self._queue.remove(turn)
            raise WaitedTooLongError

    def leave(self) -> None:
        """Give a place back, to whoever waits longest."""
        if self._queue:
            self._queue.popleft().set_result(None)
        else:
            self.taken -= 1
