"""A look that is taken again and again, however the last one ended."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from rag_core.errors import RagError

_LOGGER = logging.getLogger(__name__)


class Look:
    """A look of one kind: never twice at once, and with a memory of how the last one ended."""

    def __init__(self, name: str, work: Callable[[], Awaitable[bool]]) -> None:
        self._name = name
        self._work = work
        self._lock = asyncio.Lock()
        self.problem: str | None = None

    async def take(self) -> bool:
        """Look; return whether anything changed."""
        async with self._lock:
            try:
                changed = await self._work()
            except Exception as error:  # whatever it is, the next look may find it gone
                problem = said(error)
                if problem != self.problem:  # once, and not at every look
                    unexpected = not isinstance(error, RagError)
                    _LOGGER.warning("look at the %s failed: %s", self._name, problem, exc_info=unexpected)
                self.problem = problem
                return False
            self.problem = None
            return changed


def said(error: Exception) -> str:
    """Return what an error says; what this program did not raise on purpose with its class."""
    return str(error) if isinstance(error, RagError) else f"{type(error).__name__}: {error}"
