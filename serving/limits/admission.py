"""Who may come in now: how often and how much at once one caller may ask, and how many all together.

A service that takes in more than it can do gets slower for everybody until nobody is served. So it does a fixed number
of requests at once, lets a few wait briefly, and sends the others away early, with the time at which to come back.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from time import perf_counter
from typing import Final, Literal

from pydantic import SecretStr

from rag_core.config_serving import LimitsConfig
from serving.caller import Caller
from serving.errors import ApiError
from serving.limits.places import Places, QueueFullError, WaitedTooLongError
from serving.limits.rate import RateLimits
from serving.observability.metrics import Metrics

_WEIGHT: Final = 0.1
"""Of the newest request in the mean time of a request."""
_MOST_RETRY_S: Final = 30.0
_RESTART_S: Final = 5.0
"""After so long, whatever takes over from a service that stops will answer."""

Reason = Literal["rate", "concurrency", "queue_full", "wait", "draining"]


class Admission:
    """Lets requests in. Belongs to one event loop."""

    def __init__(self, limits: LimitsConfig, metrics: Metrics, redis_url: SecretStr | None) -> None:
        """Make it; nothing is connected yet.

        Args:
            limits: How much is let in.
            metrics: Shows who works, who waits and who was sent away.
            redis_url: Where the rates of callers are counted for all processes; None: in this one.

        Raises:
            ConfigError: The address is not one of Redis.
        """
        self._limits = limits
        self._metrics = metrics
        self._rates = RateLimits(limits.requests_per_minute, redis_url)
        self._places = Places(limits.in_flight, limits.waiting)
        self._callers: Counter[str] = Counter()
        self._is_draining = False
        self._empty = asyncio.Event()
        self._empty.set()
        self._mean_s = 0.0
        metrics.in_flight.set_function(lambda: self._places.taken)
        metrics.in_flight_limit.set(limits.in_flight)
        metrics.waiting.set_function(lambda: self._places.waiting)

    @asynccontextmanager
    async def admit(self, caller: Caller) -> AsyncIterator[None]:
        """Let a request in for as long as the context lasts, that of a stream until its last byte.

        Raises:
            ApiError: 429, the caller asks too often, or too much at once. 503, too much is asked by all together, or
                the service stops.
        """
        if self._is_draining:
            raise self._away("draining", "the service stops; another one will answer", _RESTART_S)
        with self._one_of(caller):
            wait_s = await self._rates.hit(caller.id)
            if wait_s is not None:
                most = f"{self._limits.requests_per_minute:,} requests in 60 seconds"
                raise self._away("rate", f"too many requests: at most {most}", wait_s)
            await self._enter()
            began = perf_counter()
            try:
                yield
            finally:
                self._places.leave()
                self._mean_s += _WEIGHT * (perf_counter() - began - self._mean_s)

    async def drain(self, timeout_s: float) -> bool:
        """Let nobody in any more, and wait for those who are, waiting ones as well.

        Returns:
            Whether all have left in time.
        """
        self._is_draining = True
        try:
            async with asyncio.timeout(timeout_s):
                await self._empty.wait()
        except TimeoutError:
            return False
        finally:
            await self._rates.close()
        return True

    @contextmanager
    def _one_of(self, caller: Caller) -> Iterator[None]:
        """Count a caller's requests, those that wait as well: else one caller could fill the queue alone."""
        if self._callers[caller.id] >= self._limits.concurrent:
            message = f"too many requests at once: at most {self._limits.concurrent:,}; wait for an answer first"
            raise self._away("concurrency", message, self._mean_s)
        self._callers[caller.id] += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._callers[caller.id] -= 1
            if not self._callers[caller.id]:
                del self._callers[caller.id]
            if not self._callers:
                self._empty.set()

    async def _enter(self) -> None:
        try:
            await self._places.enter(self._limits.wait_s)
        except QueueFullError:
            raise self._away("queue_full", "too many requests wait already; try again later", self._wait_s()) from None
        except WaitedTooLongError:
            message = f"no request ended within {self._limits.wait_s:g} s; try again later"
            raise self._away("wait", message, self._wait_s()) from None

    def _wait_s(self) -> float:
        """Guess when those who wait now will have had their turn."""
        return min(_MOST_RETRY_S, (self._places.waiting + 1) * self._mean_s / self._limits.in_flight)

    def _away(self, reason: Reason, message: str, retry_after_s: float) -> ApiError:
        self._metrics.rejected.labels(reason).inc()
        status, code = {
            "rate": (429, "too_many_requests"),
            "concurrency": (429, "too_many_at_once"),
            "draining": (503, "stopping"),
        }.get(reason, (503, "overloaded"))
        return ApiError(status, code, message, retry_after_s=retry_after_s)
