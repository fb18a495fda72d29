"""Tests one partition: reads what the tests look at, compiles them, has them evaluated. Never raises for one test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from rag_core.config import RagConfig
from rag_core.partitions import source_of
from rag_core.quality import conditions
from rag_core.quality.columns import is_heavy
from rag_core.quality.compiling import Compiled, Given, compile_test
from rag_core.quality.declared import KEYS, DeclaredTest
from rag_core.quality.frames import raw_batches, read_frame
from rag_core.quality.kinds import Covers, Declared, RowCount, VectorDim
from rag_core.quality.lanes import Lanes
from rag_core.quality.results import ALL_PARTITIONS, Baseline, Measured
from rag_core.quality.suites import Validator
from rag_core.tables.delta import PARTITIONED, TableSlice

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Outcome:
    """What testing a partition found.

    Attributes:
        found: Test name -> what it says, and what it found or why it could not be evaluated.
        documents: Batch name -> Great Expectations' own result, as JSON.
    """

    found: dict[str, tuple[str, Measured | Exception]] = field(default_factory=dict)
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)


class PartitionTester:
    """Tests partitions of one lane of a table, with one context of Great Expectations."""

    def __init__(self, current: TableSlice, config: RagConfig, lanes: Lanes) -> None:
        self._current = current
        self._lanes = lanes
        self._validator = Validator(config.quality.max_failing_rows)

    def test(self, key: str, tests: Sequence[DeclaredTest], history: Mapping[str, Baseline]) -> Outcome:
        """Test a partition.

        Args:
            key: The partition; `*` for a table without partitions.
            tests: What to test.
            history: Test name -> the last passing result.
        """
        current = self._current if key == ALL_PARTITIONS else self._current.of(key)
        settings = {
            test.name: test.settings if key == ALL_PARTITIONS else test.of_source(source_of(key)) for test in tests
        }
        outcome = Outcome({test.name: (test.settings.description or test.name, _NOT_RUN) for test in tests})
        try:
            frame = self._frame(current, tests, settings)
        except Exception as error:  # noqa: BLE001  (whatever is wrong with one partition must not stop the others)
            outcome.found = {name: (sentence, error) for name, (sentence, _) in outcome.found.items()}
            return outcome
        batches: dict[str, tuple[pd.DataFrame, list[Compiled]]] = {"": (frame, [])}
        for test in tests:
            own = settings[test.name]
            given = Given(history.get(test.name), self._dim(own))
            try:
                batch = self._parent_frame(current, test, own, frame) if isinstance(own, Covers) else frame
                compiled = compile_test(test, own, batch, given)
            except Exception as error:  # noqa: BLE001  (one test must not stop the others)
                outcome.found[test.name] = (test.name, error)
                continue
            if isinstance(compiled, Measured):
                outcome.found[test.name] = (own.description or f"{test.kind} of {', '.join(test.columns)}", compiled)
            elif not len(batch) and not isinstance(own, RowCount):  # of no rows only the number can be wrong
                outcome.found[test.name] = (compiled.sentence, Measured(True, 0.0, compiled.threshold, 0))
            elif batch is frame:
                batches[""][1].append(compiled)
            else:
                batches[test.name] = (batch, [compiled])
        for name, (batch, listed) in batches.items():
            if listed:
                self._validate(
                    "__".join(filter(None, (current.table, current.lane, key, name))), batch, listed, outcome
                )
        return outcome

    def _validate(self, name: str, frame: "pd.DataFrame", listed: list[Compiled], outcome: Outcome) -> None:
        sentences = {one.test.name: one.sentence for one in listed}
        try:
            found, outcome.documents[name] = self._validator.validate(name, frame, listed)
        except Exception as error:  # noqa: BLE001  (as above: the other batches and partitions are still tested)
            found = dict.fromkeys(sentences, error)
        for test, measured in found.items():
            outcome.found[test] = (sentences[test], measured)

    def _frame(
        self, current: TableSlice, tests: Sequence[DeclaredTest], settings: Mapping[str, Declared]
    ) -> "pd.DataFrame":
        names = {KEYS[current.table]}
        for test in tests:
            names |= test.frame_columns(settings[test.name])
            names |= {column for column in test.columns if not is_heavy(current.table, column)}
        return read_frame(current, sorted(names), lambda table, column: self._parent_values(current, table, column))

    def _parent(self, current: TableSlice, table: str) -> TableSlice:
        keys = current.partition_keys if table in PARTITIONED and current.table in PARTITIONED else None
        newest = TableSlice.newest(current.store, table, keys)
        return replace(newest, lane=self._lanes.of_parent(table, current.table, current.lane))

    def _parent_values(self, current: TableSlice, table: str, column: str) -> pa.Array:
        batches = raw_batches(self._parent(current, table), [column])
        values = [pc.unique(batch.column(column)).cast(pa.string()) for batch in batches]
        return pc.unique(pa.chunked_array(values, pa.string())).drop_null()

    def _parent_frame(
        self, current: TableSlice, test: DeclaredTest, settings: Covers, frame: "pd.DataFrame"
    ) -> "pd.DataFrame":
        """Return the other table's values (`value`) and whether each occurs in this one (`found`)."""
        table, column = settings.parent
        where = conditions.parse(settings.where) if settings.where is not None else None
        names = {column, *(where.columns if where else ())}
        parent = read_frame(self._parent(current, table), sorted(names), lambda *_: pa.array([], pa.string()))
        if where is not None:
            parent = parent.query(where.query)
        rows = parent[[column]].drop_duplicates().rename(columns={column: "value"}).reset_index(drop=True)
        rows["found"] = rows["value"].isin(frame[test.columns[0]])
        return rows

    def _dim(self, settings: Declared) -> int | None:
        if not isinstance(settings, VectorDim) or settings.dim is not None:
            return None
        generation = self._lanes.generation(self._current.table, self._current.lane)
        return generation.spec.dim if generation is not None else None


_NOT_RUN = RuntimeError("not run")
