"""What declared tests last found: the newest result of each test and partition, summed up by test."""

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import pyarrow.compute as pc

from rag_core.tables.delta import TableSlice, in_set
from rag_core.tables.store import Store

TABLE: Final = "quality_results"
OUTCOMES: Final = ("pass", "warn", "error")

_COLUMNS: Final = (
    "evaluated_at", "table", "lane", "partition_key", "test", "column", "severity", "blocking", "outcome", "value",
    "threshold", "rows", "failing_rows", "examples", "description",
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """The newest result of a test for a partition; the fields are those of `quality_results`."""

    evaluated_at: datetime
    table: str
    lane: str
    partition_key: str
    test: str
    column: str
    severity: str
    blocking: bool
    outcome: str
    value: float | None
    threshold: str
    rows: int
    failing_rows: int
    examples: str
    description: str

    @property
    def failing(self) -> list[str]:
        """A few failing rows, as text: key and value."""
        return [_text(example) for example in json.loads(self.examples or "[]")]


@dataclass(frozen=True)
class TestSummary:
    """A test over its partitions: how many passed, and what was found where it was worst."""

    __test__ = False  # not a test class of pytest

    table: str
    test: str
    description: str
    blocking: bool
    counts: Mapping[str, int]
    worst: Outcome

    @property
    def outcome(self) -> str:
        """The worst outcome."""
        return self.worst.outcome

    @property
    def partitions(self) -> int:
        """Partitions that were tested."""
        return sum(self.counts.values())


@dataclass(frozen=True)
class TestFacts:
    """Results of tests.

    Attributes:
        newest: One for each table, lane, test and partition.
        counts: Outcome -> results.
        failing: Those that did not pass, errors first.
        summaries: One for each table and test, by table, the worst first.
        last_at: When the last one was evaluated; None without any.
    """

    __test__ = False

    newest: tuple[Outcome, ...]
    counts: Mapping[str, int]
    failing: tuple[Outcome, ...]
    summaries: tuple[TestSummary, ...]
    last_at: datetime | None

    def counts_of(self, partition_key: str) -> Mapping[str, int]:
        """Return outcome -> results of a partition."""
        return Counter(one.outcome for one in self.newest if one.partition_key == partition_key)


def newest_outcomes(store: Store, partition_keys: Sequence[str], lanes: Mapping[str, str]) -> TestFacts:
    """Read the newest result of each test for partitions.

    Args:
        store: Holds the table.
        partition_keys: The partitions.
        lanes: Table -> the lane that counts; results of other lanes are left out. Tables that are not named, and
            results without a lane, all count.
    """
    newest: dict[tuple[str, ...], Outcome] = {}
    where = in_set("partition_key", partition_keys)
    for batch in TableSlice.newest(store, TABLE).batches(_COLUMNS, where, batch_rows=4_096):
        for row in batch.to_pylist():
            if row["lane"] and lanes.get(row["table"], row["lane"]) != row["lane"]:
                continue
            key = (row["table"], row["lane"], row["test"], row["partition_key"])
            if key not in newest or newest[key].evaluated_at <= row["evaluated_at"]:
                newest[key] = Outcome(**row)
    return facts_of(newest.values())


def facts_of(outcomes: Collection[Outcome]) -> TestFacts:
    """Sum results up."""
    ordered = sorted(outcomes, key=lambda one: (_rank(one), one.table, one.test, one.partition_key))
    return TestFacts(
        newest=tuple(ordered),
        counts={name: sum(one.outcome == name for one in ordered) for name in OUTCOMES},
        failing=tuple(one for one in ordered if one.outcome != "pass"),
        summaries=_summaries(ordered),
        last_at=max((one.evaluated_at for one in ordered), default=None),
    )


def newest_evaluation(store: Store, partition_keys: Sequence[str]) -> str:
    """Return when the newest result of some partitions was evaluated, as text; empty without any."""
    where = in_set("partition_key", partition_keys)
    newest = pc.max(TableSlice.newest(store, TABLE).read(["evaluated_at"], where)["evaluated_at"]).as_py()
    return "" if newest is None else str(newest.isoformat())


def _summaries(ordered: Sequence[Outcome]) -> tuple[TestSummary, ...]:
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for one in ordered:  # the worst of each group comes first
        groups.setdefault((one.table, one.test), []).append(one)
    found = []
    for (table, test), group in groups.items():
        worst = min(group, key=lambda one: (_rank(one), -one.failing_rows))
        blocking = any(one.blocking for one in group)
        counts = Counter(one.outcome for one in group)
        found.append(TestSummary(table, test, worst.description, blocking, counts, worst))
    return tuple(sorted(found, key=lambda one: (one.table, _rank(one.worst), one.test)))


def _rank(one: Outcome) -> int:
    return -OUTCOMES.index(one.outcome)


def _text(example: Any) -> str:
    if isinstance(example, list | tuple):
        return ": ".join(str(part) for part in example if part not in (None, ""))
    return ", ".join(f"{key} {value}" for key, value in example.items()) if isinstance(example, dict) else str(example)
