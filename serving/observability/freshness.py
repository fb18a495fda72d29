"""How fresh the sources are, as the service knows it: measured now and then, for metrics and for `/v1/index`."""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Final, TypedDict

from rag_core.config import RagConfig
from rag_core.freshness.measuring import measure
from rag_core.freshness.slo import STATES, Standing
from rag_core.tables.store import Store
from serving.observability.metrics import Metrics

_LOG: Final = logging.getLogger(__name__)
_EVERY_S: Final = 30.0


class SourceStanding(TypedDict):
    """How a source stands, as the API says it."""

    state: str
    oldest_pending_age_s: float | None


class FreshnessWatch:
    """Measures every source in the background, in a thread, as it reads tables."""

    def __init__(self, store: Store, config: RagConfig, metrics: Metrics) -> None:
        self._store, self._config, self._metrics = store, config, metrics
        self._standings: dict[str, SourceStanding] = {}
        self._is_failing = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to measure."""
        self._task = asyncio.create_task(self._run(), name="freshness")

    async def stop(self) -> None:
        """End it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def standings(self) -> dict[str, SourceStanding]:
        """Return how each source stood when last measured; a source is missing until it was."""
        return dict(self._standings)

    async def look(self) -> None:
        """Measure now. If that fails, what was measured before stays, and the failure is logged once."""
        try:
            found = await asyncio.to_thread(self._measured)
        except Exception:  # noqa: BLE001 - whatever is wrong with a table, questions are answered meanwhile
            if not self._is_failing:
                _LOG.warning("the freshness of sources cannot be measured", exc_info=True)
            self._is_failing = True
            return
        self._is_failing = False
        for standing in found:
            self._show(standing)

    async def _run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(_EVERY_S)

    def _measured(self) -> list[Standing]:
        now = datetime.now(UTC)
        return [measure(self._store, self._config, source.name, now=now).standing for source in self._config.sources]

    def _show(self, standing: Standing) -> None:
        self._metrics.source_age_seconds.labels(standing.source).set(standing.data_age_s)
        for state in STATES:
            self._metrics.source_state.labels(standing.source, state).set(state == standing.state)
        age_s = standing.data_age_s if standing.oldest_pending is not None else None
        self._standings[standing.source] = {"state": standing.state, "oldest_pending_age_s": age_s}
