"""All parts of the service, put together: made when the app starts, taken apart when it ends."""

import asyncio
import logging
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass

from rag_core.caching.redis_layout import store_id
from rag_core.config import RagConfig
from rag_core.errors import RagError
from rag_core.index.client import IndexClient, connect
from rag_core.tables.store import Store
from serving.access.authenticator import Authenticator
from serving.answer_service import AnswerService
from serving.answers.answerer import Answerer
from serving.answers.records import Records
from serving.cache.base import Cache, make_cache
from serving.errors import ApiError, index_unavailable
from serving.index.holder import IndexHolder
from serving.index.snapshot import Snapshot
from serving.limits.admission import Admission
from serving.milvus_guard import MilvusGuard
from serving.observability.audit import AuditLog
from serving.observability.freshness import FreshnessWatch
from serving.observability.metrics import Metrics
from serving.retrieval.engine import SearchEngine
from serving.search_service import SearchService

_LOGGER = logging.getLogger("rag.serving")
_RECONNECT_S = 5.0
_BEST = "rag"
_QUOTING = "rag-extractive"


@dataclass
class Parts:
    """What needs a connection to Milvus."""

    client: IndexClient
    guard: MilvusGuard
    holder: IndexHolder
    engine: SearchEngine
    search: SearchService
    answers: AnswerService
    answerers: dict[str, Answerer]


class Runtime:
    """The service of one app.

    It starts although Milvus is not there, and says so until it is; everything else is ready from the start.
    """

    def __init__(self, config: RagConfig) -> None:
        """Make what needs no connection.

        Raises:
            ConfigError: Nobody could be told from anybody else, and the service would not listen on loopback only.
        """
        serving = config.serving
        self.config = config
        self.store = Store.of(config.store)
        self.metrics = Metrics()
        self.authenticator = Authenticator(serving.access, serving.host, self.metrics)
        self.admission = Admission(serving.limits, self.metrics, serving.cache.redis_url)
        self.audit = AuditLog()
        self.records = Records(self.store, serving, self.metrics)
        self.freshness = FreshnessWatch(self.store, config, self.metrics)
        self.cache: Cache = make_cache(serving.cache, store_id(self.store), self.metrics)
        self._parts: Parts | None = None
        self._problem: str | None = "starting"
        self._stack = AsyncExitStack()
        self._connecting: asyncio.Task[None] | None = None

    @property
    def parts(self) -> Parts:
        """What searches and answers.

        Raises:
            ApiError: 503, because Milvus was not reached yet.
        """
        if self._parts is None:
            raise index_unavailable(_RECONNECT_S, "the index is not connected yet")
        return self._parts

    @property
    def problem(self) -> str | None:
        """Why questions are not answered, or why the last look at the index failed."""
        return self._problem if self._parts is None else self._parts.holder.problem

    @property
    def is_ready(self) -> bool:
        """Whether questions are answered."""
        if self._parts is None:
            return False
        try:
            with self._parts.holder.use():
                return True
        except ApiError:
            return False

    async def start(self) -> None:
        """Start what works in the background, and begin to connect."""
        await self.records.start()
        self._stack.push_async_callback(self.records.stop)
        await self.freshness.start()
        self._stack.push_async_callback(self.freshness.stop)
        self._stack.push_async_callback(self.cache.close)
        self._stack.push_async_callback(self.authenticator.close)
        self._connecting = asyncio.create_task(self._connect(), name="connect")

    async def stop(self) -> None:
        """Let requests end, then take everything apart."""
        if not await self.admission.drain(self.config.serving.drain_s):
            _LOGGER.warning("requests were still in flight after %s s", self.config.serving.drain_s)
        if self._connecting is not None:
            self._connecting.cancel()
            with suppress(asyncio.CancelledError):
                await self._connecting
        await self._stack.aclose()

    async def _connect(self) -> None:
        """Connect, however long that takes."""
        while True:
            try:
                self._parts = await self._make_parts()
            except RagError as error:
                self._problem = str(error)
                _LOGGER.warning("the index cannot be used yet: %s", error)
            except Exception:
                self._problem = "the index cannot be used: an unexpected error, see the log"
                _LOGGER.exception("the index cannot be used yet")
            else:
                self._problem = None
                return
            await asyncio.sleep(_RECONNECT_S)

    async def _make_parts(self) -> Parts:
        serving, retrieval = self.config.serving, self.config.serving.retrieval
        # Requests wait for Milvus as long as callers wait for them, not as long as a pipeline does.
        index = self.config.index.model_copy(update={"timeout_s": retrieval.timeout_s})
        connected = ExitStack()
        client = await asyncio.to_thread(connected.enter_context, connect(index, self.store))
        async with AsyncExitStack() as stack:
            stack.callback(connected.close)
            guard = MilvusGuard(retrieval, self.metrics)
            stack.push_async_callback(guard.close)
            engine = SearchEngine(self.config, client, guard, self.metrics)
            stack.push_async_callback(engine.close)

            async def warm(snapshot: Snapshot) -> None:
                await search.warm(snapshot, await self.records.frequent(serving.cache.warm_queries))

            holder = IndexHolder(self.config, self.store, client, guard, self.metrics, warm=warm)
            search = SearchService(
                self.config, self.store, holder=holder, engine=engine, cache=self.cache, metrics=self.metrics
            )
            answers = AnswerService(serving, records=self.records, cache=self.cache, metrics=self.metrics)
            answerers: dict[str, Answerer] = {}
            for quoting in (True, False):
                settings = serving.model_copy(update={"llm": serving.llm.model_copy(update={"base_url": None})})
                answerer = Answerer(settings if quoting else serving, self.metrics, engine.embed)
                stack.push_async_callback(answerer.close)
                answerers |= {name: answerer for name in answerer.model_names if quoting or name != _QUOTING}
                answerers[_BEST] = answerer
            await holder.start()
            stack.push_async_callback(holder.stop)
            self._stack.push_async_exit(stack.pop_all())
        return Parts(client, guard, holder, engine, search, answers, answerers)
