"""What all stages share: counts per partition, and a digest of a partition's content."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rag_core import ids
from rag_core.tables.change import TableChange
from rag_core.tables.delta import TableSlice

Progress = Callable[[str, int, int], None]
"""Called as (what, done, total); total 0 means unknown."""

CONTENT_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "documents": ("doc_id", "doc_hash"),
    "chunks": ("chunk_id", "row_hash"),
    "embeddings": ("chunk_id", "text_hash", "model_fingerprint"),
    "index_partitions": ("collection", "chunk_id", "row_hash", "model_fingerprint"),
}
"""The columns that make up a partition's content; equal content has an equal data version."""


def no_progress(_what: str, _done: int, _total: int) -> None:
    """Report progress to nobody."""


def nothing() -> None:
    """Do nothing after the commit."""


@dataclass
class Counts:
    """What a stage did to one partition, in rows of its own table unless the name says otherwise."""

    rows_in: int = 0
    new: int = 0
    changed: int = 0
    deleted: int = 0
    unchanged: int = 0
    rejected: int = 0
    empty: int = 0
    extra: dict[str, float] = field(default_factory=dict)

    @property
    def is_unchanged(self) -> bool:
        """Whether the partition needs no work."""
        return not (self.new or self.changed or self.deleted)


@dataclass(frozen=True)
class StageOutput:
    """A stage's change, ready to be committed, with what was counted while making it.

    Attributes:
        change: To be committed by the IO manager.
        counts: One entry for each partition of the run.
        seconds: Wall-clock time of each step.
        totals: Figures of the whole run (bytes read, tokens/s, reuse share, ...).
        examples: Rejected documents as (partition key, uri, reason), a few per partition.
        after_commit: What is only true once the change is committed; called then.
        listed_at: Of each source that was listed, when its listing began (UTC): the change covers what was there then.
    """

    change: TableChange
    counts: Mapping[str, Counts]
    seconds: Mapping[str, float]
    totals: Mapping[str, Any] = field(default_factory=dict)
    examples: tuple[tuple[str, str, str], ...] = ()
    after_commit: Callable[[], None] = nothing
    listed_at: Mapping[str, datetime] = field(default_factory=dict)


def count_by_partition(table: pa.Table) -> dict[str, int]:
    """Count rows by partition key."""
    grouped = table.group_by("partition_key").aggregate([([], "count_all")])
    return dict(zip(grouped["partition_key"].to_pylist(), grouped["count_all"].to_pylist(), strict=True))


@dataclass(frozen=True)
class Content:
    """What a partition holds: how many rows, and their digest, independent of their order and of rewriting."""

    rows: int
    digest: str


def contents(current: TableSlice) -> dict[str, Content]:
    """Count and digest the rows of each partition of the slice.

    Returns:
        Partition key -> content, for every partition the slice names; an empty partition has the digest of nothing.
    """
    columns = CONTENT_COLUMNS[current.table]
    table = current.read(["partition_key", *columns])
    joined = pc.binary_join_element_wise(*(table[column] for column in columns), "\x1f")
    rows: dict[str, list[str]] = {key: [] for key in current.partition_keys or ()}
    for key, row in zip(table["partition_key"].to_pylist(), joined.to_pylist(), strict=True):
        rows.setdefault(key, []).append(row)
    return {key: Content(len(listed), ids.digest(*sorted(listed))) for key, listed in rows.items()}


def anti_join(left: pa.Table, right: pa.Table, keys: Iterable[str]) -> pa.Table:
    """Return the rows of `left` whose keys do not occur in `right`, in no particular order."""
    names = list(keys)
    return left.join(right.select(names), keys=names, join_type="left anti")
