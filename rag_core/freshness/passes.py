"""Passes: what became of each partition in each run that was to bring it up to date. The table `passes`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from rag_core import ids
from rag_core.partitions import source_of
from rag_core.tables.log import append_rows
from rag_core.tables.log_reading import read_log
from rag_core.tables.store import Store

_TABLE = "passes"

Outcome = Literal["ok", "failed", "held", "crashed"]


@dataclass(frozen=True)
class Pass:
    """One try to bring a partition up to date; the columns of `passes`, where what each means is written.

    `attempt` counts the tries of the partition in its run, from 1; run, partition and attempt identify a pass, so
    recording it again has no effect.
    """

    partition_key: str
    reason: str
    listed_at: datetime
    verified_at: datetime | None = None
    outcome: str = "ok"
    stage: str = ""
    failure: str = ""
    message: str = ""
    objects: int = 0
    seconds: float = 0.0
    attempt: int = 1
    finished_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        if (self.outcome == "ok") != (self.verified_at is not None):
            raise ValueError(
                f"pass over {self.partition_key}: verified_at must be given if the outcome is ok, and only then; "
                f"got {self.outcome!r} and {self.verified_at}"
            )

    def row(self, run_id: str) -> dict[str, Any]:
        """Return the row of `passes`."""
        names = ("partition_key", "reason", "listed_at", "verified_at", "outcome", "stage", "failure", "message")
        return {
            "pass_id": ids.digest("pass", run_id, self.partition_key, str(self.attempt)),
            "run_id": run_id,
            "source": source_of(self.partition_key),
            **{name: getattr(self, name) for name in names},
            "objects": self.objects,
            "seconds": self.seconds,
            "finished_at": self.finished_at,
        }


def record_passes(store: Store, passes: Sequence[Pass], run_id: str) -> None:
    """Append passes in one commit; all or none."""
    append_rows(store, _TABLE, [one.row(run_id) for one in passes], run_id=run_id)


def load_passes(store: Store, *, since: datetime | None = None) -> pa.Table:
    """Return the passes that finished at `since` or later, each once, by `finished_at`. Repeated calls cost little."""
    rows = read_log(store, _TABLE, key="pass_id", time="finished_at")
    return rows if since is None else rows.filter(pc.field("finished_at") >= pa.scalar(since, rows["finished_at"].type))
