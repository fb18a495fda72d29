"""What tests found, and the two tables that keep it: `quality_results` and `quality_failures`."""

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import write_deltalake
from deltalake.exceptions import CommitFailedError

from rag_core import ids
from rag_core.quality.declared import DeclaredTest
from rag_core.quality.kinds import Declared
from rag_core.tables.delta import SCHEMAS, TableSlice, ensure_table, in_set
from rag_core.tables.store import Store

ALL_PARTITIONS: Final = "*"
"""Partition key of results about a table that has no partitions."""

ACCEPTED: Final = "accepted"
"""In place of the content: no result, but a note that the test's history begins anew."""

_EXAMPLES = 5
_MAX_FILES = 64  # each append is a file; reading many small ones takes longer than the tests


def figure(value: float) -> str:
    """Write a number for people: thousands apart, no exponents, no more than six digits of a fraction."""
    whole = float(value).is_integer() or abs(value) >= 100_000
    return f"{value:,.0f}" if whole else f"{value:,.6g}"


@dataclass(frozen=True)
class Measured:
    """What a test found in a partition.

    Attributes:
        passed: Whether it holds.
        value: What was measured: failing rows, or the mean, share or count of a test of the whole partition.
        threshold: What was expected, in words.
        rows: Rows that were tested.
        failing_rows: Rows that fail.
        failing: Keys and values of some of them.
        profile: What later runs compare with besides the value: shares of values.
    """

    passed: bool
    value: float | None
    threshold: str
    rows: int
    failing_rows: int = 0
    failing: tuple[tuple[str, str], ...] = ()
    profile: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Baseline:
    """The last passing result of a test for a partition."""

    value: float
    rows: int
    profile: Mapping[str, float]


@dataclass(frozen=True)
class Tested:
    """What results are about: a partition with a certain content, and the run that tests it."""

    run_id: str
    table: str
    lane: str
    partition_key: str
    version: int
    suite_fingerprint: str


@dataclass(frozen=True)
class Result:
    """One row of `quality_results`; the columns are described in `rag_core.schemas`.

    `reused` says that an earlier result for the same content is returned; it is not stored.
    """

    result_id: str
    run_id: str
    evaluated_at: datetime
    table: str
    lane: str
    partition_key: str
    table_version: int
    content: str
    suite_fingerprint: str
    test: str
    kind: str
    column: str
    severity: str
    blocking: bool
    outcome: str
    value: float | None
    threshold: str
    rows: int
    failing_rows: int
    examples: str
    profile: str
    description: str
    reused: bool = False

    @property
    def holds_back(self) -> bool:
        """Whether the partition must not reach the stage behind."""
        return self.blocking and self.outcome == "error"

    @property
    def could_not_be_tested(self) -> bool:
        """Whether the test itself failed: nothing was measured, and the next run tries again."""
        return self.outcome == "error" and self.value is None

    @property
    def failing(self) -> list[tuple[str, str]]:
        """A few failing rows as (key, value)."""
        return [(key, value) for key, value in json.loads(self.examples)]

    @property
    def reason(self) -> str:
        """The failure in a sentence."""
        if self.value is None:
            return f"{self.test}: {self.description}"
        found = (
            f"{self.failing_rows:,} of {self.rows:,} rows fail" if self.failing_rows else f"found {figure(self.value)}"
        )
        examples = ", ".join(key for key, _ in self.failing[:3])
        return f"{self.test}: {self.description} {found.capitalize()}, expected {self.threshold}" + (
            f"; for example {examples}" if examples else self._accepting
        )

    @property
    def _accepting(self) -> str:
        """How to say that a jump is right, where the value was held against history."""
        key = "" if self.partition_key == ALL_PARTITIONS else f" --partition {self.partition_key}"
        return f"; if that is right: rag test{key} --accept" if ", was " in self.threshold else ""


def result_of(
    tested: Tested, content: str, test: DeclaredTest, settings: Declared, found: Measured | Exception, sentence: str
) -> Result:
    """Make the row for what a test found; for an exception, a row that says that it could not be tested."""
    now = datetime.now(UTC)
    if isinstance(found, Exception):
        sentence = f"could not be tested: {type(found).__name__}: {found}"[:2_000]
        found = Measured(False, None, sentence, 0)
        outcome = "error"
    else:
        outcome = "pass" if found.passed else settings.severity
    return Result(
        result_id=ids.digest("result", tested.run_id, tested.table, tested.lane, tested.partition_key, content,
                             tested.suite_fingerprint, test.name, now.isoformat()),
        run_id=tested.run_id,
        evaluated_at=now,
        table=tested.table,
        lane=tested.lane,
        partition_key=tested.partition_key,
        table_version=tested.version,
        content=content,
        suite_fingerprint=tested.suite_fingerprint,
        test=test.name,
        kind=test.kind,
        column=",".join(test.columns),
        severity=settings.severity,
        blocking=settings.blocking,
        outcome=outcome,
        value=found.value,
        threshold=found.threshold,
        rows=found.rows,
        failing_rows=found.failing_rows,
        examples=json.dumps(found.failing[:_EXAMPLES], ensure_ascii=False),
        profile=json.dumps(found.profile, ensure_ascii=False, sort_keys=True),
        description=sentence,
    )  # fmt: skip


def append(store: Store, results: Sequence[tuple[Result, Sequence[tuple[str, str]]]]) -> None:
    """Store results with their failing rows."""
    rows = [{name: getattr(result, name) for name in SCHEMAS["quality_results"].names} for result, _ in results]
    failures = [
        {"result_id": result.result_id, "evaluated_at": result.evaluated_at, "table": result.table,
         "partition_key": result.partition_key, "test": result.test, "key": key, "value": value}
        for result, failing in results
        for key, value in failing
    ]  # fmt: skip
    # Failing rows first: a result whose rows are missing would say less than none, rows without a result say nothing.
    for name, listed in (("quality_failures", failures), ("quality_results", rows)):
        if listed:
            table = ensure_table(store, name)
            write_deltalake(table, pa.Table.from_pylist(listed, SCHEMAS[name]), mode="append")
            _compact(store, name)


def _compact(store: Store, name: str) -> None:
    table = ensure_table(store, name)
    if len(table.file_uris()) > _MAX_FILES:
        try:
            table.optimize.compact()
        except CommitFailedError as error:  # another process did it at the same time
            logging.getLogger(__name__).info("%s was not compacted: %s", name, error)


def stored_results(store: Store, tested: Tested, contents: Collection[str], keys: Collection[str]) -> list[Result]:
    """Return the newest result of each test for each partition with one of these contents, those that measured."""
    where = (
        (pc.field("table") == tested.table)
        & (pc.field("lane") == tested.lane)
        & (pc.field("suite_fingerprint") == tested.suite_fingerprint)
        & in_set("partition_key", list(keys))
        & in_set("content", list(contents))
    )
    found = TableSlice.newest(store, "quality_results").read(where=where).sort_by("evaluated_at")
    newest = {(row["partition_key"], row["content"], row["test"]): row for row in found.to_pylist()}
    results = [Result(**row, reused=True) for row in newest.values()]
    return [result for result in results if not result.could_not_be_tested]


def baselines(
    store: Store, tested: Tested, keys: Collection[str], tests: Collection[str]
) -> dict[tuple[str, str], Baseline]:
    """Return the last passing measure of each (partition, test), of those taken since a jump was last accepted."""
    where = (
        (pc.field("table") == tested.table)
        & (pc.field("lane") == tested.lane)
        & (pc.field("outcome") == "pass")
        & in_set("partition_key", list(keys))
        & in_set("test", list(tests))
    )
    columns = ["partition_key", "test", "value", "rows", "profile", "content", "evaluated_at"]
    found = TableSlice.newest(store, "quality_results").read(columns, where).sort_by("evaluated_at")
    newest: dict[tuple[str, str], Baseline] = {}
    for row in found.to_pylist():
        if row["content"] == ACCEPTED:
            newest.pop((row["partition_key"], row["test"]), None)
        elif row["value"] is not None:
            newest[row["partition_key"], row["test"]] = Baseline(row["value"], row["rows"], json.loads(row["profile"]))
    return newest


def failing_rows(store: Store, result_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return the stored failing rows of results."""
    rows: list[dict[str, Any]] = (
        TableSlice.newest(store, "quality_failures").read(where=in_set("result_id", list(result_ids))).to_pylist()
    )
    return rows
