"""What is served now. Looks again and again at what is published and what has changed, and switches between requests.

There are two looks, each in its own rhythm. `_refresh` reads from the tables what has changed in the served index; it
is quick and needs no Milvus. `_follow` finds out which index is published, and takes it up, which may mean to load a
model. One does not wait for the other: answers are never older than a look while an index is being loaded, and access
that was taken away is noticed while Milvus is gone.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Final, TypeVar

from rag_core.config import RagConfig
from rag_core.errors import PermanentError, RagError, TransientError
from rag_core.index.client import IndexClient
from rag_core.retrieval.served import ServedIndex
from rag_core.stages.publication import Manifest
from rag_core.tables.store import Store
from serving.errors import index_unavailable
from serving.index.looking import Look, said
from serving.index.preparing import answers_alike, prepare
from serving.index.reading import TableReader
from serving.index.snapshot import Snapshot
from serving.index.users import IndexUsers
from serving.milvus_guard import MilvusGuard
from serving.observability.metrics import Metrics

T = TypeVar("T")

_LOGGER = logging.getLogger(__name__)
_WARM_S: Final = 30.0


class IndexHolder:
    """Holds the snapshot that requests begin with. For one event loop."""

    def __init__(
        self,
        config: RagConfig,
        store: Store,
        client: IndexClient,
        guard: MilvusGuard,
        metrics: Metrics,
        *,
        warm: Callable[[Snapshot], Awaitable[None]],
    ) -> None:
        """Hold nothing yet.

        Args:
            config: The configuration.
            store: Holds the tables.
            client: Connected to Milvus.
            guard: Its requests go through it.
            metrics: Told what is served.
            warm: Asks an index the first questions before it is served; may fail, and is given 30 s.
        """
        self._config = config
        self._store = store
        self._client = client
        self._guard = guard
        self._metrics = metrics
        self._warm = warm
        self._look_s = config.serving.cache.look_s
        self._tables = TableReader(store)
        self._reading = ThreadPoolExecutor(
            1, thread_name_prefix="tables"
        )  # one: the reader is for one thread at a time
        self._snapshot: Snapshot | None = None
        self._users = IndexUsers()
        self._refreshing = Look("tables", self._refresh)
        self._following = Look("publication", self._follow)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Look for the first time, and go on looking until `stop`. That nothing can be served yet is no error."""
        await self.look()
        self._tasks = [asyncio.create_task(self._repeat(step)) for step in (self._refreshing, self._following)]

    async def stop(self) -> None:
        """Look no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        self._reading.shutdown(wait=False, cancel_futures=True)

    @contextmanager
    def use(self) -> Iterator[Snapshot]:
        """Give what is served, the same for the whole block, whatever is published meanwhile.

        Raises:
            ApiError: 503, nothing can be served yet.
        """
        snapshot = self._snapshot
        if snapshot is None:
            # `problem` names addresses and folders, which are not for callers.
            raise index_unavailable(self._look_s, "no index is ready yet")
        with self._users.using(snapshot.index):
            yield snapshot

    async def unused(self, index: ServedIndex) -> None:
        """Return once no request uses an index that was served."""
        await self._users.none_of(index)

    @property
    def problem(self) -> str | None:
        """Why nothing is served, or why the last look failed; None if all is well."""
        problems = [step.problem for step in (self._following, self._refreshing) if step.problem]
        return "; ".join(problems) or None

    @property
    def looked_at(self) -> float | None:
        """Monotonic time at which versions and access labels of what is served were last read; None: never yet.

        It goes on while Milvus is gone: what is cached under a version is right as long as versions are known.
        """
        return None if self._snapshot is None else self._snapshot.looked_at

    async def look(self) -> bool:
        """Look once, now; a look that fails keeps what is served and sets `problem`.

        Returns:
            Whether requests find anything changed.
        """
        refreshed = await self._refreshing.take()
        followed = await self._following.take()
        return refreshed or followed

    async def _repeat(self, step: Look) -> None:
        while True:
            await asyncio.sleep(self._look_s)
            await step.take()

    async def _refresh(self) -> bool:
        """Read versions and access labels of the served index."""
        before = self._snapshot
        if before is None:
            return False
        snapshot = await self._snapshot_of(before.index)
        if self._snapshot is None or self._snapshot.index is not before.index:
            return False  # another was taken up meanwhile, with a later reading
        self._snapshot = snapshot
        self._metrics.index_age_seconds.set(_age_s(snapshot.index.manifest))
        return snapshot.versions != before.versions or snapshot.access != before.access

    async def _follow(self) -> bool:
        """Take up what is published; while Milvus does not say, still a newer manifest of what is served."""
        served = self._snapshot.index if self._snapshot else None
        alias = self._config.index.alias
        trouble: RagError | None = None
        collection: str | None = None
        try:
            # Before the manifests are read: a publication writes its manifest first, so that of the alias is there.
            collection = await self._guard.call(partial(self._client.alias_target, alias))
            if collection is None:
                trouble = TransientError(f"nothing is published as {alias} yet; build and publish an index: rag run")
        except RagError as error:
            trouble = error
        if collection is None and served is not None:
            collection = served.collection
        changed = collection is not None and await self._follow_to(collection, served)
        if trouble is not None:
            raise trouble
        return changed

    async def _follow_to(self, collection: str, served: ServedIndex | None) -> bool:
        manifest = await self._read(partial(self._tables.manifest_of, collection))
        if manifest is None:
            raise PermanentError(
                f"alias {self._config.index.alias} points at {collection}, of which store {self._store.root} has no "
                f"manifest; build and publish the index: rag run"
            )
        if served is not None and served.manifest == manifest:
            return False
        try:
            snapshot = await self._ready(manifest, served)
        except Exception:
            self._metrics.switches.labels("failed").inc()
            raise
        self._snapshot = snapshot  # requests that have begun keep the one before
        self._metrics.switches.labels("switched").inc()
        self._show(manifest)
        return True

    async def _ready(self, manifest: Manifest, served: ServedIndex | None) -> Snapshot:
        """Load an index, and ask it the first questions if it answers otherwise than the one before."""
        index = await asyncio.to_thread(prepare, self._config, self._store, manifest, served)
        snapshot = await self._snapshot_of(index)
        if served is not None and answers_alike(served.manifest, manifest):
            return snapshot
        try:
            async with asyncio.timeout(_WARM_S):
                await self._warm(snapshot)
        except Exception as error:  # noqa: BLE001 - whatever it is, a cold index answers better than an outdated one
            _LOGGER.warning("index %s is served cold: %s", index.collection, said(error))
        return await self._snapshot_of(index)  # documents may have changed while it was warmed

    async def _snapshot_of(self, index: ServedIndex) -> Snapshot:
        # A result is cached under the versions of the snapshot that it was searched with. They are read here, before
        # the search begins, so what it finds is at least as new as its key says. Read afterwards, they could name a
        # change that the search did not see, and the outdated result would be valid until the next change.
        looked_at, now, before = time.monotonic(), time.time(), self._snapshot
        say = await self._read(partial(self._tables.tables_say, index.collection))
        is_known = before is not None and before.index is index and before.versions == say.versions
        return Snapshot(index, say.access, say.versions, looked_at, before.seen_at if before and is_known else now)

    async def _read(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._reading, work)

    def _show(self, manifest: Manifest) -> None:
        metrics = self._metrics
        metrics.index_info.clear()  # what was served before is not 0, it is gone
        metrics.index_info.labels(manifest.collection, manifest.published_at.isoformat(), manifest.model).set(1)
        metrics.index_age_seconds.set(_age_s(manifest))
        metrics.index_chunks.set(manifest.chunks)
        metrics.index_recall.set(float("nan") if manifest.ann_recall_at_10 is None else manifest.ann_recall_at_10)
        _LOGGER.info("serving %s, published at %s", manifest.collection, manifest.published_at.isoformat())


def _age_s(manifest: Manifest) -> float:
    return (datetime.now(UTC) - manifest.published_at).total_seconds()
