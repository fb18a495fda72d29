"""How old what is indexed is, how long it took to get there, and what is not there yet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rag_core.freshness.measuring import Measured
from rag_core.freshness.plots import history_svg
from rag_core.freshness.slo import Standing, State
from rag_core.reports.formats import themed
from rag_core.reports.pages import Tone
from rag_core.stages.common import anti_join
from rag_core.tables.delta import TableSlice

_DAY: Final = 86_400.0
_AGES: Final = (
    ("under a day", _DAY),
    ("1 to 7 days", 7 * _DAY),
    ("7 to 30 days", 30 * _DAY),
    ("1 to 3 months", 91 * _DAY),
    ("3 to 12 months", 365.25 * _DAY),
    ("1 to 3 years", 3 * 365.25 * _DAY),
    ("over 3 years", np.inf),
)
_DELAYS: Final = (
    ("under 10 s", 10.0),
    ("10 s to 1 min", 60.0),
    ("1 to 10 min", 600.0),
    ("10 to 60 min", 3_600.0),
    ("1 to 24 hours", _DAY),
    ("over a day", np.inf),
)


STATE_TONES: Final[Mapping[State, Tone]] = {
    "ok": "good",
    "slow_burn": "warn",
    "fast_burn": "bad",
    "exhausted": "bad",
    "hard_limit": "bad",
}


@dataclass(frozen=True)
class Spread:
    """Of times in seconds: how many in each class, the middle, the 95th percentile and the largest."""

    classes: dict[str, int]
    p50_s: float
    p95_s: float
    largest_s: float


@dataclass(frozen=True)
class Freshness:
    """Freshness of a source.

    Attributes:
        age: Of indexed documents, now minus when the source changed them; None if the source tells no times.
        delay: From the row of a document to its last row in the index; None if nothing is indexed.
        without_time: Indexed documents of which the source does not say when they were changed.
        waiting: Chunks that the index does not hold yet.
        oldest_waiting: When the source changed the oldest document of these; now minus this is the age of the data.
        newest_change: Newest change at the source of a document that is indexed.
    """

    age: Spread | None
    delay: Spread | None
    without_time: int
    waiting: int
    oldest_waiting: datetime | None
    newest_change: datetime | None


def freshness(documents: TableSlice, chunks: TableSlice, ledger: TableSlice, *, now: datetime) -> Freshness:
    """Join documents, chunks and ledger by their keys."""
    times = documents.read(["doc_id", "modified_at", "ingested_at"], pc.field("status") == "ok")
    rows = ledger.read(["chunk_id", "doc_id", "row_hash", "indexed_at"])
    last = rows.group_by("doc_id").aggregate([("indexed_at", "max")])
    indexed = times.join(last, keys="doc_id", join_type="inner")
    waiting = anti_join(chunks.read(["chunk_id", "doc_id", "row_hash"]), rows, ["chunk_id", "row_hash"])
    late = times.filter(pc.is_in(times["doc_id"], waiting["doc_id"].combine_chunks()))
    changed = indexed["modified_at"].drop_null()
    since = _seconds(pc.subtract(pa.scalar(now, changed.type), changed))
    delays = _seconds(pc.subtract(indexed["indexed_at_max"], indexed["ingested_at"]))
    return Freshness(
        age=_spread(np.maximum(since, 0.0), _AGES),  # clocks of sources may go ahead
        # A document whose row was written again without a change of what is indexed says nothing.
        delay=_spread(delays[delays >= 0], _DELAYS),
        without_time=indexed.num_rows - len(changed),
        waiting=waiting.num_rows,
        oldest_waiting=_value(pc.min(late["modified_at"])),
        newest_change=_value(pc.max(changed)),
    )


def change_latencies(rows: pa.Table) -> Spread | None:
    """Return how long counted changes took to become searchable, of the `latencies` of a source; None without any."""
    return _spread(rows.filter(rows["counted"])["latency_s"].drop_null().to_numpy(), _DELAYS)


def history_plot(measured: Measured) -> str:
    """Draw the latency, age and error budget that were measured, for inside a page; empty if no change was counted."""
    standing = measured.standing
    if not standing.counted and not standing.pending:
        return ""
    return themed(history_svg(measured.rows, standing.objective, now=standing.now), "history")


def share_met(standing: Standing) -> str:
    """Say in a few words how a source stands to its objective."""
    if standing.attained is None:
        return f"{standing.state}, no change in {standing.objective.window_days} days"
    return f"{standing.state}, {100 * standing.attained:.4g} % in time"


def _seconds(durations: pa.ChunkedArray) -> NDArray[np.float64]:
    micros: NDArray[np.int64] = durations.cast(pa.int64()).to_numpy()
    return micros / 1e6


def _spread(seconds: NDArray[np.float64], classes: Sequence[tuple[str, float]]) -> Spread | None:
    if not seconds.size:
        return None
    edges = [0.0, *(end for _, end in classes)]
    counts, _ = np.histogram(seconds, edges)
    middle, high = np.percentile(seconds, (50, 95))
    names = (name for name, _ in classes)
    return Spread(dict(zip(names, counts.tolist(), strict=True)), float(middle), float(high), float(seconds.max()))


def _value(scalar: Any) -> datetime | None:
    value: datetime | None = scalar.as_py()
    return value
