"""Reads what is known of a source from the store and judges it, for the check, the sensor, `rag slo` and reports."""

from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from rag_core.config import RagConfig
from rag_core.freshness.changes import load_changes
from rag_core.freshness.latency import latencies
from rag_core.freshness.passes import load_passes
from rag_core.freshness.slo import Standing, standing_of
from rag_core.tables.store import Store


@dataclass(frozen=True)
class Measured:
    """A source's changes with their latencies, and how it stands to its objective."""

    rows: pa.Table
    standing: Standing

    @property
    def known(self) -> str:
        """What differs as soon as a change was seen or became searchable."""
        return f"{self.rows.num_rows} {pc.max(self.rows['queryable_at']).value}"

    @property
    def marker(self) -> str:
        """The same, and it differs when the last burn is over."""
        return f"{self.known} {any(self.standing.burn.values())}"


def measure(store: Store, config: RagConfig, source: str, *, now: datetime) -> Measured:
    """Judge a source.

    All changes are read, however old: one that never became searchable counts until it is.

    Raises:
        KeyError: There is no such source.
    """
    objective = config.objective_of(config.source(source))
    rows = latencies(load_changes(store, source=source), load_passes(store), now=now)
    return Measured(rows, standing_of(rows, objective, config.freshness, source=source, now=now))
