"""Tokens of the language model that this process may still use today (UTC)."""

from collections.abc import Callable
from datetime import UTC, date, datetime

_BYTES_PER_TOKEN = 4  # of English text; of other scripts a token is fewer characters, but these have more bytes each


def estimated_tokens(text: str) -> int:
    """Estimate the tokens of a text; for bounds, not for bills."""
    return -(-len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN)


class TokenBudget:
    """Reservations and what was really used; used from one event loop.

    Args:
        tokens_per_day: None: no bound.
        today: Given by tests only.
    """

    def __init__(
        self, tokens_per_day: int | None, *, today: Callable[[], date] = lambda: datetime.now(UTC).date()
    ) -> None:
        self.most = tokens_per_day
        self._today = today
        self._day = today()
        self._spent = 0
        self._reserved = 0

    @property
    def used(self) -> int:
        """Tokens used or reserved today."""
        self._turn()
        return self._spent + self._reserved

    def reserve(self, tokens: int) -> bool:
        """Set tokens aside before a request, so that requests at once do not spend the same ones; False: too few."""
        if self.most is not None and self.used + tokens > self.most:
            return False
        self._reserved += tokens
        return True

    def settle(self, reserved: int, used: int) -> None:
        """Put what was really used in the place of a reservation."""
        self._turn()
        self._reserved -= reserved
        self._spent += used

    def _turn(self) -> None:
        if (today := self._today()) != self._day:
            self._day, self._spent = today, 0
