"""How often one caller may ask: in any 60 seconds, over all processes that share a Redis."""

import asyncio
import logging
import time
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from limits.errors import StorageError
from pydantic import SecretStr
from redis.asyncio import ConnectionPool

from rag_core.errors import ConfigError

_LOG: Final = logging.getLogger(__name__)
_PREFIX: Final = "rag:limits"
_REDIS_S: Final = 0.25
"""Time limit of a request to Redis; a limit is not worth more of a caller's time."""
_REST_S: Final = 5.0
"""So long Redis is left alone after it failed."""


class RateLimits:
    """A moving window for each caller.

    It is kept in Redis if there is one. Redis is no reason to refuse anybody: while it fails, each process counts for
    itself, so that a caller may ask as often as the limit of each.
    """

    def __init__(
        self,
        per_minute: int,
        redis_url: SecretStr | None,
        *,
        redis_timeout_s: float = _REDIS_S,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Make the windows; nothing is connected yet.

        Raises:
            ConfigError: The address is not one of Redis.
        """
        self._limit: RateLimitItem = RateLimitItemPerMinute(per_minute)
        self._clock = clock
        self._redis_timeout_s = redis_timeout_s
        self._own = MovingWindowRateLimiter(MemoryStorage())
        self._pool = _pool(redis_url) if redis_url is not None else None
        self._shared = MovingWindowRateLimiter(_storage(self._pool)) if self._pool is not None else None
        self._rest_until: float | None = None

    async def hit(self, caller_id: str) -> float | None:
        """Count a request.

        Returns:
            None if it is within the limit; else after how many seconds the next one is. It was not counted then.
        """
        if self._shared is not None and (self._rest_until is None or self._clock() >= self._rest_until):
            try:
                async with asyncio.timeout(self._redis_timeout_s):
                    wait_s = await self._hit(self._shared, caller_id)
            except (StorageError, OSError) as error:  # a time-out is an OSError
                if self._rest_until is None:
                    _LOG.warning("rate limits are counted by each process for itself: Redis: %s", type(error).__name__)
                self._rest_until = self._clock() + _REST_S
            else:
                if self._rest_until is not None:
                    _LOG.info("rate limits are counted in Redis again")
                self._rest_until = None
                return wait_s
        return await self._hit(self._own, caller_id)

    async def close(self) -> None:
        """Close the connections to Redis."""
        if self._pool is not None:
            await self._pool.aclose()

    async def _hit(self, limiter: MovingWindowRateLimiter, caller_id: str) -> float | None:
        if await limiter.hit(self._limit, caller_id):
            return None
        window = await limiter.get_window_stats(self._limit, caller_id)
        return max(0.0, window.reset_time - time.time())


def _pool(url: SecretStr) -> ConnectionPool:
    try:
        return ConnectionPool.from_url(url.get_secret_value())
    except ValueError:
        raise ConfigError(
            "serving.cache.redis_url: expected redis://user:password@host:6379/0, or rediss:// for TLS"
        ) from None


def _storage(pool: ConnectionPool) -> RedisStorage:
    """Make the storage over connections of ours: `limits` wants a port in every address, and closes none."""
    options: dict[str, Any] = {"connection_pool": pool}
    return RedisStorage("async+redis://", wrap_exceptions=True, implementation="redispy", key_prefix=_PREFIX, **options)
