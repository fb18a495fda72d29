"""Asset checks of the declared tests: one op per table, one check per test, one evaluation per partition.

The checks show; they do not block. What holds a partition back is the gate that the stage behind asks
(`rag_core.quality.gate`): a blocking check of Dagster would stop every partition of its run.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import dagster as dg
from dagster import AssetCheckEvaluation, AssetCheckKey
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData

from dbt_like_checks.evaluations import target_of
from rag_assets.jobs import TEST_JOB
from rag_assets.materialize import RETRY, failures_by_class, markdown_table
from rag_core.config import RagConfig
from rag_core.quality.declared import DeclaredTable, DeclaredTest
from rag_core.quality.loading import load_declarations
from rag_core.quality.results import ALL_PARTITIONS, Result
from rag_core.quality.running import run_tests
from rag_core.tables.delta import PARTITIONED
from resources.platform import PlatformResource

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition


def build_checks(config: RagConfig, partitions: dg.PartitionsDefinition[str]) -> Sequence[dg.AssetChecksDefinition]:
    """Make the checks of every table that has declared tests.

    Raises:
        ConfigError: A declaration is wrong.
    """
    tables = load_declarations(config).values()
    return [_checks_of(table, partitions if table.name in PARTITIONED else None) for table in tables if table.tests]


def build_test_job(config: RagConfig) -> "UnresolvedAssetJobDefinition":
    """Make the job that runs the checks of the partitioned tables alone, for the partitions that changed.

    The jobs of the stages leave them out: an evaluation is an event of Dagster's log, and those of all tests and
    partitions take longer than finding that nothing changed.
    """
    tables = [table for table in load_declarations(config).values() if table.name in PARTITIONED]
    checks = [AssetCheckKey(dg.AssetKey(table.name), test.name) for table in tables for test in table.tests]
    return dg.define_asset_job(
        TEST_JOB,
        selection=dg.AssetSelection.checks(*checks),
        description="The declared tests of all tables, for the chosen partitions. What was tested is not tested again.",
    )


def _checks_of(table: DeclaredTable, partitions: dg.PartitionsDefinition[str] | None) -> dg.AssetChecksDefinition:
    specs = [
        dg.AssetCheckSpec(
            name=test.name,
            asset=table.name,
            description=_description(test),
            metadata={"kind": test.kind, "columns": ", ".join(test.columns) or "all", "declared_in": _file(test)},
            partitions_def=partitions,
        )
        for test in table.tests
    ]

    @dg.multi_asset_check(
        name=f"test_{table.name}",
        specs=specs,
        can_subset=True,
        retry_policy=RETRY,
        description=f"The declared tests of {table.name}. {table.description}",
    )
    def checks(context: dg.AssetCheckExecutionContext, platform: PlatformResource) -> Iterator[AssetCheckEvaluation]:
        op = context.op_execution_context
        keys = list(op.partition_keys) if partitions is not None and op.has_partitions else None
        names = {key.name for key in op.selected_asset_check_keys}
        with failures_by_class():
            results = run_tests(
                platform.slice(table.name, keys),
                platform.config,
                run_id=context.run.run_id,
                tests=names,
            )
        yield from _evaluations(context, table.name, results)

    return checks


def _evaluations(
    context: dg.AssetCheckExecutionContext, table: str, results: Sequence[Result]
) -> Iterator[AssetCheckEvaluation]:
    """Make one evaluation of each check for each partition; results of several lanes become one."""
    by_partition: dict[str, dict[str, list[Result]]] = {}
    for result in results:
        by_partition.setdefault(result.partition_key, {}).setdefault(result.test, []).append(result)
    for key, by_test in by_partition.items():
        partition = None if key == ALL_PARTITIONS else key
        target = target_of(context, table, partition)
        for test, lanes in by_test.items():
            yield _evaluation(AssetCheckKey(dg.AssetKey(table), test), lanes, partition, target)


def _evaluation(
    check: AssetCheckKey,
    lanes: Sequence[Result],
    partition: str | None,
    target: AssetCheckEvaluationTargetMaterializationData | None,
) -> AssetCheckEvaluation:
    worst = max(lanes, key=lambda result: ("pass", "warn", "error").index(result.outcome))
    return AssetCheckEvaluation(
        asset_key=check.asset_key,
        check_name=check.name,
        passed=worst.outcome == "pass",
        severity=dg.AssetCheckSeverity.WARN if worst.severity == "warn" else dg.AssetCheckSeverity.ERROR,
        description=worst.description if worst.outcome == "pass" else worst.reason,
        metadata=_metadata(worst, lanes),
        target_materialization_data=target,
        blocking=False,
        partition=partition,
    )


def _metadata(worst: Result, lanes: Sequence[Result]) -> dict[str, dg.MetadataValue]:
    metadata: dict[str, dg.MetadataValue] = {
        "partition": dg.MetadataValue.text(worst.partition_key),
        "expected": dg.MetadataValue.text(worst.threshold),
        "rows": dg.MetadataValue.int(worst.rows),
        "failing_rows": dg.MetadataValue.int(worst.failing_rows),
        "holds_back": dg.MetadataValue.bool(worst.holds_back),
        "tested_at": dg.MetadataValue.timestamp(worst.evaluated_at),
        "tested_by_run": dg.MetadataValue.text(worst.run_id),
        "table_version": dg.MetadataValue.int(worst.table_version),
    }
    if worst.value is not None:
        metadata = {"value": dg.MetadataValue.float(worst.value), **metadata}
    if worst.failing:
        rows = [{"key": key, "value": value} for key, value in worst.failing]
        metadata["failing"] = dg.MetadataValue.md(markdown_table(("key", "value"), rows))
    if len(lanes) > 1:
        shown = [{"lane": one.lane, "outcome": one.outcome, "value": one.value} for one in lanes]
        metadata["lanes"] = dg.MetadataValue.md(markdown_table(("lane", "outcome", "value"), shown))
    return metadata


def _description(test: DeclaredTest) -> str:
    settings = test.settings
    effect = "holds the partition back" if test.blocking else f"is a {settings.severity}"
    about = settings.description or f"{test.kind} of {', '.join(test.columns) or 'the table'}."
    return f"{about} A failure {effect}."


def _file(test: DeclaredTest) -> str:
    return "/".join(test.place.split("/")[-2:])
