"""Which partitions changes wait in, and when each may be tried: from the tables of changes and passes, nothing else."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rag_core.config import RagConfig
from rag_core.config_freshness import RunConfig
from rag_core.freshness.changes import load_changes
from rag_core.freshness.passes import load_passes
from rag_core.partitions import partition_keys_of
from rag_core.tables.store import Store

_MOST_DOUBLINGS = 30  # 2^30 times any wait is above retry_at_most_s, and still a number of seconds


@dataclass(frozen=True)
class Dirty:
    """A partition with changes that no pass covers.

    Attributes:
        partition_key: Which.
        objects: Objects that changed.
        oldest_changed_at: When the oldest of the changes was made.
        newest_seen_at: When the newest of them was seen.
        newest_look: Number of the look that saw it; with the partition it names the work, for run keys.
        attempts: Passes that failed, crashed or were held back and covered all of these changes.
        failure: Why the last of them did not succeed: permanent (held back included), transient, or empty.
        retry_at: When it may be tried, at once if that is past; None: not before something changes.
        stuck: It failed for good, or so often that it is reported.
        message: What the last of them said; may be empty.
    """

    partition_key: str
    objects: int
    oldest_changed_at: datetime
    newest_seen_at: datetime
    newest_look: int
    attempts: int
    failure: str
    retry_at: datetime | None
    stuck: bool
    message: str = ""

    def is_due(self, now: datetime) -> bool:
        """Whether it may be tried now."""
        return self.retry_at is not None and self.retry_at <= now


def dirty_partitions(store: Store, config: RagConfig, source: str, *, now: datetime) -> list[Dirty]:
    """Return the dirty partitions of a source, that with the oldest change first.

    Args:
        store: Holds the tables.
        config: Buckets of the source, and how failures are tried again.
        source: Name of the source.
        now: What has not failed is due now.
    """
    keys = partition_keys_of(config, source)
    # those of other sources fall away by their partitions: to filter them here would copy all rows at every look
    return dirty_of(load_changes(store), load_passes(store), keys, config.run, now=now)


def dirty_of(
    changes: pa.Table, passes: pa.Table, partition_keys: Collection[str], config: RunConfig, *, now: datetime
) -> list[Dirty]:
    """Do the same with tables of changes and passes, for the named partitions; pure."""
    named = pc.is_in(passes["partition_key"], pa.array(partition_keys, pa.string()))
    passes = passes.filter(named).select(["partition_key", "listed_at", "outcome", "failure", "message", "finished_at"])
    waiting = _uncovered(changes, passes, partition_keys)
    failed = passes.filter(pc.field("outcome") != "ok")
    found = [_dirty(row, _tries(failed, row), config, now) for row in waiting.to_pylist()]
    return sorted(found, key=lambda one: (one.oldest_changed_at, one.partition_key))


def _uncovered(changes: pa.Table, passes: pa.Table, partition_keys: Collection[str]) -> pa.Table:
    """Sum up, by partition, the changes that were seen after the listing of its newest pass that is ok began."""
    ok = passes.filter(pc.field("outcome") == "ok").group_by("partition_key").aggregate([("listed_at", "max")])
    covered = dict(zip(ok["partition_key"].to_pylist(), ok["listed_at_max"], strict=True))
    seen_type = changes.schema.field("seen_at").type
    keys = pa.array(partition_keys, pa.string())
    until = pa.array([covered[key].as_py() if key in covered else None for key in partition_keys], seen_type)
    place = pc.index_in(changes["partition_key"], keys)
    limit = until.take(place.combine_chunks() if isinstance(place, pa.ChunkedArray) else place)
    is_waiting = pc.and_(pc.is_valid(place), pc.fill_null(pc.greater(changes["seen_at"], limit), True))
    columns = ["partition_key", "object_id", "changed_at", "seen_at", "look"]
    return (
        changes.select(columns)
        .filter(is_waiting)
        .group_by("partition_key")
        .aggregate([("object_id", "count_distinct"), ("changed_at", "min"), ("seen_at", "max"), ("look", "max")])
    )


def _tries(failed: pa.Table, waiting: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the passes that failed although they covered all that waits, oldest first."""
    seen_at = pa.scalar(waiting["seen_at_max"], failed.schema.field("listed_at").type)
    rows = failed.filter((pc.field("partition_key") == waiting["partition_key"]) & (pc.field("listed_at") >= seen_at))
    return sorted(rows.to_pylist(), key=lambda row: row["finished_at"])


def _dirty(waiting: Mapping[str, Any], tries: list[dict[str, Any]], config: RunConfig, now: datetime) -> Dirty:
    last = tries[-1] if tries else None
    failure, retry_at, stuck = "", now, False
    if last is not None:
        is_final = last["outcome"] == "held" or last["failure"] == "permanent"
        failure = "permanent" if is_final else "transient"
        wait_s = config.retry_after_s * 2.0 ** min(len(tries) - 1, _MOST_DOUBLINGS)
        retry_at = last["finished_at"] + timedelta(seconds=min(wait_s, config.retry_at_most_s))
        stuck = is_final or len(tries) >= config.max_attempts
    return Dirty(
        partition_key=waiting["partition_key"],
        objects=waiting["object_id_count_distinct"],
        oldest_changed_at=waiting["changed_at_min"],
        newest_seen_at=waiting["seen_at_max"],
        newest_look=waiting["look_max"],
        attempts=len(tries),
        failure=failure,
        retry_at=None if failure == "permanent" else retry_at,
        stuck=stuck,
        message=last["message"] if last is not None else "",
    )
