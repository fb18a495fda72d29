"""Expectations of our own, registered with Great Expectations by being defined; most give a built-in one its meaning.

Importing this module imports Great Expectations, which takes seconds: only `suites` and
`compiling` do, when something has to be tested.
"""

from typing import Any, ClassVar

import great_expectations.expectations as gxe
from great_expectations.execution_engine import PandasExecutionEngine
from great_expectations.expectations.expectation import ColumnAggregateExpectation
from great_expectations.expectations.metrics.column_aggregate_metric_provider import (
    ColumnAggregateMetricProvider,
    column_aggregate_value,
)
from great_expectations.render import (
    LegacyDiagnosticRendererType,
    LegacyRendererType,
    RenderedStringTemplateContent,
)
from great_expectations.render.renderer.renderer import renderer
from great_expectations.render.renderer_configuration import RendererConfiguration, RendererValueType


class ExpectVectorsToHaveDimension(gxe.ExpectColumnValuesToBeInSet):
    """Expect every vector to have the model's number of entries; on the measure `vector.dim`."""

    description: str = "Every vector has the model's dimension."


class ExpectVectorsToHaveUnitLength(gxe.ExpectColumnValuesToBeBetween):
    """Expect every vector to have length 1 within a tolerance; on the measure `vector.norm`."""

    description: str = "Every vector has length 1."


class ExpectVectorsToBeFinite(gxe.ExpectColumnValuesToBeBetween):
    """Expect no vector to hold a null, NaN or infinite entry; on the measure `vector.nan_count`."""

    description: str = "Every entry of every vector is a finite number."


class ExpectVectorsToDiffer(gxe.ExpectColumnMeanToBeBetween):
    """Expect different texts to have different vectors; on the measure `vector.shared`, 1 where they do not."""

    description: str = "Different texts have different vectors."


class ExpectValuesToHaveParent(gxe.ExpectColumnValuesToBeInSet):
    """Expect every value to occur in another table; on the measure `column.in.table.column`."""

    description: str = "Every value occurs in the other table."


class ExpectParentsToBeCovered(gxe.ExpectColumnValuesToBeInSet):
    """Expect every row of another table to have a row here; on that table's values and whether they were found."""

    description: str = "Every row of the other table has a row here."


class ExpectTextsToHoldNoPersonalData(gxe.ExpectColumnValuesToNotMatchRegex):
    """Expect no text to look as if it held personal data; on the measure `text.pii`."""

    description: str = "No text looks as if it held personal data."


class ExpectTextsNotToBeBoilerplate(gxe.ExpectColumnValuesToBeBetween):
    """Expect no text to occur in too many documents; on the measure `text_hash.document_share`."""

    description: str = "No text occurs in too large a share of the documents."


class ExpectRowsToSatisfy(gxe.ExpectColumnValuesToBeInSet):
    """Expect a condition to hold for every row; on a column with the outcome of the condition."""

    description: str = "The condition holds for every row."


class ColumnCategoryShares(ColumnAggregateMetricProvider):
    """Metric: value -> share of rows, null written as `?`."""

    metric_name = "column.category_shares"
    filter_column_isnull = False

    @column_aggregate_value(engine=PandasExecutionEngine)
    def _pandas(cls, column: Any, **_kwargs: Any) -> dict[str, float]:  # noqa: N805  (the decorator makes it a classmethod)
        counts = column.fillna("?").astype(str).value_counts(normalize=True)
        return {str(value): float(share) for value, share in counts.items()}


class ExpectCategorySharesToHold(ColumnAggregateExpectation):
    """Expect the shares of a column's values not to have moved away from earlier ones.

    The measure is the total variation distance: the share of rows that would have to change their value to get from the
    earlier shares to the present ones.
    """

    earlier: dict[str, float] | None = None
    max_shift: float = 0.3

    metric_dependencies: ClassVar[tuple[str, ...]] = ("column.category_shares",)
    success_keys: ClassVar[tuple[str, ...]] = ("earlier", "max_shift")
    domain_keys: ClassVar[tuple[str, ...]] = ("batch_id", "table", "column", "row_condition", "condition_parser")

    def _validate(self, metrics: dict[str, Any], **_: Any) -> dict[str, Any]:
        shares = metrics["column.category_shares"]
        earlier = shares if self.earlier is None else self.earlier
        shift = sum(abs(shares.get(value, 0.0) - earlier.get(value, 0.0)) for value in {*shares, *earlier}) / 2
        return {"success": shift <= self.max_shift, "result": {"observed_value": shift, "details": {"shares": shares}}}

    @classmethod
    def _prescriptive_template(cls, renderer_configuration: RendererConfiguration) -> RendererConfiguration:
        renderer_configuration.add_param(name="column", param_type=RendererValueType.STRING)
        renderer_configuration.add_param(name="max_shift", param_type=RendererValueType.NUMBER)
        renderer_configuration.template_str = "shares of the values of $column must have shifted by $max_shift at most."
        return renderer_configuration

    @classmethod
    @renderer(renderer_type=LegacyRendererType.PRESCRIPTIVE)
    def _prescriptive_renderer(
        cls, configuration: Any = None, _result: Any = None, _runtime_configuration: Any = None, **_: Any
    ) -> list[RenderedStringTemplateContent]:
        template = "shares of the values must have shifted by $max_shift at most."
        params = {"max_shift": configuration.kwargs.get("max_shift")}
        content = {"template": template, "params": params}
        return [RenderedStringTemplateContent(content_block_type="string_template", string_template=content)]

    @classmethod
    @renderer(renderer_type=LegacyDiagnosticRendererType.OBSERVED_VALUE)
    def _diagnostic_observed_value_renderer(cls, _configuration: Any = None, result: Any = None, **_: Any) -> str:
        shares = result.result.get("details", {}).get("shares", {}) if result else {}
        largest = sorted(shares.items(), key=lambda item: -item[1])[:5]
        shown = ", ".join(f"{value} {share:.0%}" for value, share in largest)
        return f"{result.result.get('observed_value', 0.0):.1%} shifted; now {shown}" if result else "--"
