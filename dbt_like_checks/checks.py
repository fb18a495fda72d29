"""Asset checks of the declared tests: one op per table, one check per test, its evaluation about all partitions.

The checks show; they do not block. What holds a partition back is the gate that the stage behind asks
(`rag_core.quality.gate`): a blocking check of Dagster would stop every partition of its run.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster import AssetCheckKey

from rag_assets.automation import CHECKS_FIRST, publication_condition
from rag_assets.jobs import TEST_JOB
from rag_assets.materialize import FAILING_IN, RETRY, failures_by_class, markdown_table
from rag_assets.under_way import under_way
from rag_core.config import RagConfig
from rag_core.quality.declared import DeclaredTable, DeclaredTest
from rag_core.quality.loading import load_declarations
from rag_core.quality.results import ALL_PARTITIONS, Result, figure
from rag_core.quality.running import run_tests
from rag_core.tables.delta import PARTITIONED
from resources.platform import PlatformResource

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

_SHOWN_ROWS = 20
_SHOWN_PARTITIONS = 50
_ORDER = ("pass", "warn", "error")


def build_checks(config: RagConfig) -> Sequence[dg.AssetChecksDefinition]:
    """Make the checks of every table that has declared tests.

    Raises:
        ConfigError: A declaration is wrong.
    """
    return [_checks_of(table, config) for table in load_declarations(config).values() if table.tests]


def build_test_job(config: RagConfig) -> "UnresolvedAssetJobDefinition":
    """Make the job that runs the declared tests alone, of all tables and partitions."""
    tables = load_declarations(config).values()
    checks = [AssetCheckKey(dg.AssetKey(table.name), test.name) for table in tables for test in table.tests]
    return dg.define_asset_job(
        TEST_JOB,
        selection=dg.AssetSelection.checks(*checks),
        description="The declared tests of all tables. What was tested and did not change is not tested again.",
    )


def _checks_of(table: DeclaredTable, config: RagConfig) -> dg.AssetChecksDefinition:
    behind = None if table.name in PARTITIONED else table.name
    condition = publication_condition(config, behind=behind)
    specs = [
        dg.AssetCheckSpec(
            name=test.name,
            asset=table.name,
            description=_description(test),
            metadata={"kind": test.kind, "columns": ", ".join(test.columns) or "all", "declared_in": _file(test)},
            automation_condition=condition,
        )
        for test in table.tests
    ]

    @dg.multi_asset_check(
        name=f"test_{table.name}",
        specs=specs,
        can_subset=True,
        op_tags=CHECKS_FIRST,
        retry_policy=RETRY,
        description=f"The declared tests of {table.name}. {table.description}",
    )
    def checks(context: dg.AssetCheckExecutionContext, platform: PlatformResource) -> Iterator[dg.AssetCheckResult]:
        names = {key.name for key in context.op_execution_context.selected_asset_check_keys}
        with failures_by_class():
            # Of every partition, not of those of the run alone: what another run found must not be hidden by this one.
            busy = under_way(context.instance, platform.config, but=context.run.run_id)
            results = run_tests(platform.slice(table.name), platform.config, run_id=context.run.run_id, tests=names)
            busy |= under_way(context.instance, platform.config, but=context.run.run_id)
        for test in table.tests:
            if test.name in names:
                of_test = [result for result in results if result.test == test.name]
                yield _evaluated(table.name, test, _settled(test, of_test, busy))

    return checks


def _settled(test: DeclaredTest, results: Sequence[Result], busy: Collection[str]) -> list[Result]:
    """Leave out failures that only say that a partition is being written: one table of it is newer than the other.

    The run that writes it tests it before each stage, and its end asks for the checks again.
    """
    return [one for one in results if not (test.parents and one.outcome != "pass" and one.partition_key in busy)]


def _evaluated(table: str, test: DeclaredTest, results: Sequence[Result]) -> dg.AssetCheckResult:
    """Sum the results of all partitions and lanes up in one evaluation; the worst of them decides."""
    failed = [result for result in results if result.outcome != "pass"]
    worst = max(results, key=lambda result: (_ORDER.index(result.outcome), result.failing_rows), default=None)
    severity = test.settings.severity if worst is None else worst.severity
    return dg.AssetCheckResult(
        asset_key=table,
        check_name=test.name,
        passed=not failed,
        severity=dg.AssetCheckSeverity.WARN if severity == "warn" else dg.AssetCheckSeverity.ERROR,
        description=_said(failed, results),
        metadata=_metadata(worst, failed, results) if worst is not None else {},
    )


def _said(failed: Sequence[Result], results: Sequence[Result]) -> str:
    if not results:
        return "nothing to test yet"
    if not failed:
        return f"passed in all {len(results):,} partitions" if len(results) > 1 else "passed"
    where = "" if failed[0].partition_key == ALL_PARTITIONS else f"{failed[0].partition_key}: "
    more = f" (and {len(failed) - 1:,} more partitions)" if len(failed) > 1 else ""
    return f"{where}{failed[0].reason}{more}"


def _metadata(worst: Result, failed: Sequence[Result], results: Sequence[Result]) -> dict[str, Any]:
    metadata: dict[str, Any] = {} if worst.value is None else {"value": worst.value}
    metadata |= {
        "expected": worst.threshold,
        "partitions": len({result.partition_key for result in results}),
        "failing_partitions": len({result.partition_key for result in failed}),
        "rows": sum(result.rows for result in results),
        "failing_rows": sum(result.failing_rows for result in results),
    }
    if held := sorted({result.partition_key for result in failed if result.holds_back}):
        metadata["held_back"] = ", ".join(held)
    if failed:
        metadata[FAILING_IN] = ", ".join(sorted({result.partition_key for result in failed}))
        columns = ("partition", "lane", "outcome", "value", "expected", "failing_rows", "tested_at")
        metadata["by_partition"] = dg.MetadataValue.md(
            markdown_table(columns, [*map(_row, failed[:_SHOWN_PARTITIONS])])
        )
    rows = [
        {"partition": result.partition_key, "key": key, "value": value}
        for result in failed
        for key, value in result.failing
    ]
    if rows:
        metadata["failing"] = dg.MetadataValue.md(markdown_table(("partition", "key", "value"), rows[:_SHOWN_ROWS]))
    return metadata


def _row(result: Result) -> dict[str, Any]:
    return {
        "partition": result.partition_key,
        "lane": result.lane,
        "outcome": result.outcome,
        "value": "" if result.value is None else figure(result.value),
        "expected": result.threshold,
        "failing_rows": result.failing_rows,
        "tested_at": f"{result.evaluated_at:%Y-%m-%d %H:%M:%S}",
    }


def _description(test: DeclaredTest) -> str:
    settings = test.settings
    effect = "holds the partition back" if test.blocking else "warns" if settings.severity == "warn" else "is an error"
    kind = (type(settings).__doc__ or test.kind).partition("\n")[0]
    about = settings.description or (f"{', '.join(test.columns)}: {kind}" if test.columns else kind)
    return f"{about} A failure {effect}."


def _file(test: DeclaredTest) -> str:
    return "/".join(test.place.split("/")[-2:])
