"""All requests of the service to Milvus go through here: threads of their own, a time limit, and a circuit breaker."""

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import NoReturn, TypeVar

from pybreaker import STATE_HALF_OPEN, STATE_OPEN, CircuitBreaker, CircuitBreakerError

from rag_core.config_serving import RetrievalConfig
from rag_core.errors import PermanentError, TransientError
from serving.observability.metrics import Metrics

T = TypeVar("T")


class MilvusUnavailable(TransientError):  # noqa: N818 - it says what is the matter, as its status 503 does
    """Milvus does not answer, or is left alone because it did not.

    Attributes:
        retry_after_s: When to come back.
    """

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class MilvusGuard:
    """Runs blocking requests to Milvus; made and used in one event loop.

    Python cannot end a thread: one whose request hangs is lost until the request returns. When all are, calls fail at
    once instead of queueing behind them.
    """

    def __init__(self, settings: RetrievalConfig, metrics: Metrics, *, threads: int = 8) -> None:
        self._timeout_s = settings.timeout_s
        self._reset_s = settings.breaker_reset_s
        self._metrics = metrics
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="milvus")
        self._breaker = CircuitBreaker(
            fail_max=settings.breaker_failures, reset_timeout=settings.breaker_reset_s, throw_new_error_on_trip=False
        )
        self._retry_at = 0.0
        self._is_trying = False
        self._lost = 0
        self._lost_lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether Milvus is left alone at present."""
        return str(self._breaker.current_state) == STATE_OPEN

    async def call(self, work: Callable[[], T], *, timeout_s: float | None = None) -> T:
        """Run blocking work in a thread.

        Args:
            work: Sends one or more requests to Milvus.
            timeout_s: Time limit, waiting for a thread included; default: that of the configuration.

        Raises:
            MilvusUnavailable: It failed, took too long, or was not begun.
            PermanentError: The request can never succeed. That Milvus says so is no failure of Milvus.
        """
        is_trial = self._admit()
        try:
            result = await self._bounded(work, timeout_s or self._timeout_s)
        except TimeoutError:
            self._failed("timeout", f"Milvus did not answer within {timeout_s or self._timeout_s:g} s")
        except MilvusUnavailable:
            raise
        except TransientError as error:
            self._failed("transient", str(error))
        except PermanentError:
            self._metrics.milvus_errors.labels("permanent").inc()
            self._record(None)
            raise
        finally:
            # One that was cancelled has found out nothing: the next call tries.
            self._is_trying = self._is_trying and not is_trial
        self._record(None)
        return result

    async def close(self) -> None:
        """Take no more calls; those that run end by themselves."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _admit(self) -> bool:
        """Refuse a call while the breaker is open; return whether this is the one that tries again."""
        if self.is_open:
            left_s = self._retry_at - time.monotonic()
            if left_s > 0:
                self._refuse("open", "Milvus is left alone after several failures", left_s)
            self._breaker.half_open()
        if self._breaker.current_state != STATE_HALF_OPEN:
            return False
        if self._is_trying:
            self._refuse("open", "Milvus is being tried again", 1.0)
        self._is_trying = True
        return True

    async def _bounded(self, work: Callable[[], T], timeout_s: float) -> T:
        if self._lost >= self._threads:
            self._refuse("busy", "no request to Milvus has returned", self._reset_s)
        # The trace of the request goes on in the thread.
        future: Future[T] = self._pool.submit(contextvars.copy_context().run, work)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), timeout_s)
        except (TimeoutError, asyncio.CancelledError) as error:
            if future.cancelled() and isinstance(error, TimeoutError):
                self._refuse("busy", f"no thread was free for a request to Milvus within {timeout_s:g} s", 1.0)
            if future.running():
                with self._lost_lock:
                    self._lost += 1
                future.add_done_callback(self._found_again)  # called at once if it has ended meanwhile
            raise

    def _found_again(self, _: Future[T]) -> None:
        with self._lost_lock:
            self._lost -= 1

    def _failed(self, kind: str, message: str) -> NoReturn:
        self._metrics.milvus_errors.labels(kind).inc()
        error = MilvusUnavailable(message, self._reset_s)
        self._record(error)
        raise error

    def _refuse(self, kind: str, message: str, retry_after_s: float) -> NoReturn:
        self._metrics.milvus_errors.labels(kind).inc()
        raise MilvusUnavailable(message, retry_after_s)

    def _record(self, error: MilvusUnavailable | None) -> None:
        """Tell the breaker how a call ended; its own `call` would hold its lock for as long as the request takes."""
        was_open = self.is_open
        if was_open:
            return  # a call that began before: it is known already
        with suppress(MilvusUnavailable, CircuitBreakerError):
            self._breaker.call(_end, error)
        if self.is_open:
            self._retry_at = time.monotonic() + self._reset_s
        self._metrics.breaker_open.set(self.is_open)


def _end(error: MilvusUnavailable | None) -> None:
    if error is not None:
        raise error
