"""A cache in Redis, shared by all processes that serve a store, and told of removed documents by runs."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from pydantic import SecretStr
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from rag_core.caching.redis_layout import FORGET, GONE_S, KEEP, RedisKeys
from serving.observability.metrics import Metrics

T = TypeVar("T")

_LOGGER = logging.getLogger(__name__)
_PAUSE_S: Final = 2.0
_CONNECTIONS: Final = 32


class RedisCache:
    """Keeps entries in Redis. One that fails, or is slow, is left alone for two seconds and then asked again.

    Without that pause each request would wait for the time limit while Redis is gone.
    """

    def __init__(
        self,
        redis_url: SecretStr,
        store_id: str,
        metrics: Metrics,
        *,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Connect to nothing yet.

        Args:
            redis_url: Address, with the password.
            store_id: Keeps the keys of several stores apart.
            metrics: Failures are counted there.
            timeout_s: Time limit of each request, connecting included.
            clock: Measures the pause.
        """
        # A request is not tried again: a miss costs less than a second time limit.
        pool = BlockingConnectionPool.from_url(
            redis_url.get_secret_value(), max_connections=_CONNECTIONS, timeout=timeout_s, retry=Retry(NoBackoff(), 0)
        )
        self._redis = Redis.from_pool(pool)
        self._keep = self._redis.register_script(KEEP)
        self._forget = self._redis.register_script(FORGET)
        self._keys = RedisKeys(store_id)
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._clock = clock
        self._ask_again_at = 0.0

    async def get(self, key: str) -> bytes | None:
        """Return what is kept, or None; also None if Redis does not answer."""
        value: bytes | None = await self._asked(lambda: self._redis.get(self._keys.entry(key)), None)
        return value

    async def set(self, key: str, value: bytes, *, ttl_s: float, doc_ids: Sequence[str] = ()) -> None:
        """Keep a value, unless Redis does not answer."""
        keys = [self._keys.entry(key), *self._keys.documents(list(dict.fromkeys(doc_ids)))]
        await self._asked(lambda: self._keep(keys=keys, args=[value, max(1, round(ttl_s * 1000))]), None)

    async def forget(self, doc_ids: Sequence[str]) -> int:
        """Forget all that was made of any of these documents; 0 also if Redis does not answer."""
        forgotten = 0
        for keys in self._keys.in_parts(doc_ids):
            forgotten += await self._asked(partial(self._forget, keys=keys, args=[GONE_S]), 0)
        return forgotten

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose(close_connection_pool=True)

    async def _asked(self, request: Callable[[], Awaitable[Any]], otherwise: T) -> T:
        if self._clock() < self._ask_again_at:
            return otherwise
        try:
            async with asyncio.timeout(self._timeout_s):
                result: T = await request()
        except (RedisError, OSError, TimeoutError) as error:
            self._ask_again_at = self._clock() + _PAUSE_S
            self._metrics.cache.labels("redis", "error").inc()
            _LOGGER.warning("Redis does not answer, and is asked again in %g s: %s", _PAUSE_S, type(error).__name__)
            return otherwise
        return result
