"""Runs compiled tests on a frame with Great Expectations: one ephemeral context per run, a batch per partition.

Importing this module imports Great Expectations, which takes seconds: that is done only if something is to be tested.
"""

import logging
import math
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import great_expectations as gx
from great_expectations.data_context.types.base import DataContextConfig, InMemoryStoreBackendDefaults

from rag_core.quality import expectations  # noqa: F401  (being imported registers them)
from rag_core.quality.compiling import Compiled
from rag_core.quality.results import Measured

if TYPE_CHECKING:
    import pandas as pd

logging.getLogger("great_expectations").setLevel(logging.ERROR)  # it tells of every context and metric

_VALUE_CHARS = 500


class EvaluationError(Exception):
    """Great Expectations could not evaluate a test."""


class Validator:
    """Validates the batches of one run.

    Args:
        max_failing_rows: Failing rows that are returned of one test and batch.
    """

    def __init__(self, max_failing_rows: int) -> None:
        self._max_failing_rows = max_failing_rows
        # Without this configuration each context makes a temporary folder for a site of Data Docs.
        config = DataContextConfig(store_backend_defaults=InMemoryStoreBackendDefaults())
        self._context = gx.get_context(mode="ephemeral", project_config=config)
        self._context.variables.progress_bars = {"globally": False, "metric_calculations": False}
        # One asset for all batches of the run: each further one makes GX write the whole context as YAML. The names are
        # unique because GX keeps some things by name for the whole process.
        asset = self._context.data_sources.add_pandas(f"rag_{uuid.uuid4().hex}").add_dataframe_asset("partitions")
        self._definition = asset.add_batch_definition_whole_dataframe("partition")

    def validate(
        self, name: str, frame: "pd.DataFrame", compiled: Sequence[Compiled]
    ) -> tuple[dict[str, Measured | Exception], dict[str, Any]]:
        """Run compiled tests on a frame, to which the columns are added that they need.

        Args:
            name: Of the suite, such as `chunks__handbook__07`.
            frame: Columns and measures that the tests read.
            compiled: The tests, with names that differ.

        Returns:
            Test name -> what it found, or why it could not be evaluated; and Great Expectations' own result as JSON,
            which holds a few values of failing rows and no frame.
        """
        for one in compiled:
            for column, query in one.added.items():
                frame[column] = frame.eval(query)
        batch = self._definition.get_batch({"dataframe": frame})
        suite = gx.ExpectationSuite(name=name, expectations=[one.expectation for one in compiled])
        result = batch.validate(suite, result_format={"result_format": "BASIC", "partial_unexpected_count": 5})
        by_test = {item.expectation_config.meta["test"]: item for item in result.results}
        found = {one.test.name: self._measured(one, by_test[one.test.name], frame, batch) for one in compiled}
        return found, result.to_json_dict()

    def _measured(self, one: Compiled, item: Any, frame: "pd.DataFrame", batch: Any) -> Measured | Exception:
        result, passed = item.result, bool(item.success)
        if not result:
            return EvaluationError(_message(item.exception_info))
        if "unexpected_count" in result:
            count = int(result["unexpected_count"] or 0)
            failing = () if passed else self._failing(one, batch)
            measured = float(count) if one.largest is None else float(frame[one.largest].max())
            return Measured(passed, measured, one.threshold, int(result["element_count"]), count, failing)
        observed = result["observed_value"]
        value = None if observed is None or math.isnan(float(observed)) else float(observed)
        profile = result.get("details", {}).get("shares", {})
        if passed or one.marks is None:
            return Measured(passed, value, one.threshold, len(frame), profile=profile)
        marked = frame.query(one.marks)
        failing = tuple(self._row(one, row) for row in marked.head(self._max_failing_rows).to_dict("records"))
        return Measured(passed, value, one.threshold, len(frame), len(marked), failing, profile)

    def _failing(self, one: Compiled, batch: Any) -> tuple[tuple[str, str], ...]:
        """Ask again, for the rows: only failing tests pay for lists of them."""
        wanted = {
            "result_format": "SUMMARY",
            "partial_unexpected_count": self._max_failing_rows,
            "unexpected_index_column_names": list(dict.fromkeys([one.key, *one.shown])),
        }
        rows = batch.validate(one.expectation, result_format=wanted).result.get("partial_unexpected_index_list")
        return tuple(self._row(one, row) for row in (rows or [])[: self._max_failing_rows])

    @staticmethod
    def _row(one: Compiled, row: dict[str, Any]) -> tuple[str, str]:
        values = [f"{name}={_text(row.get(name))}" for name in one.shown]
        shown = values[0].partition("=")[2] if len(values) == 1 else ", ".join(values)
        return _text(row.get(one.key)), shown[:_VALUE_CHARS]


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "null"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _message(info: dict[str, Any]) -> str:
    """Return the first message of GX's exceptions, which are listed by metric."""
    if "exception_message" in info:
        return str(info["exception_message"])
    return next((str(one["exception_message"]) for one in info.values() if isinstance(one, dict)), "no result")
