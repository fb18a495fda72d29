"""Asset checks of the index: Milvus against its ledger, the verdict's measurements one by one, and the alias.

Like those of the declared tests they show and do not block: what may not be published is refused by `published_index`.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster import AssetCheckKey

from rag_assets.automation import never, publication_condition
from rag_assets.materialize import RETRY, failures_by_class, markdown_table
from rag_core.config import RagConfig
from rag_core.index.anti_entropy import PartitionState, alias_finding, partitions_of, verify
from rag_core.partitions import all_partition_keys
from rag_core.stages.consistency import ledger_tables
from rag_core.stages.publication import generations, latest_manifest
from rag_core.stages.verdict import newest_verdict
from rag_core.stages.verdict_checks import CHECKS, VerdictCheck, verdict_checks
from resources.milvus import MilvusResource
from resources.platform import PlatformResource

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

VERIFY_JOB = "verify_index"
ANTI_ENTROPY = "anti_entropy"


def build_index_checks(config: RagConfig) -> Sequence[dg.AssetChecksDefinition]:
    """Return the checks of `index_partitions`, `index_verdict` and `published_index`."""
    return [compare_with_ledger, _check_verdict(config), _alias_is_right(config)]


def build_verify_job() -> "UnresolvedAssetJobDefinition":
    """Make the job that compares Milvus with its ledger."""
    return dg.define_asset_job(
        VERIFY_JOB,
        selection=dg.AssetSelection.checks(AssetCheckKey(dg.AssetKey("index_partitions"), ANTI_ENTROPY)),
        description="Compare Milvus with its ledger, by two read paths. Changes nothing; `rag verify --repair` mends.",
    )


@dg.asset_check(
    asset="index_partitions",
    name=ANTI_ENTROPY,
    description="Milvus holds what the ledger says: listed by id, and sampled rows are found by their own vectors.",
    retry_policy=RETRY,
    pool="milvus_writes",
    automation_condition=never(),
)
def compare_with_ledger(
    context: dg.AssetCheckExecutionContext, platform: PlatformResource, milvus: MilvusResource
) -> dg.AssetCheckResult:
    """Compare every partition of the served collection with its ledger, by two read paths."""
    with failures_by_class(), milvus.client() as client:
        tables = ledger_tables(platform.store, platform.config)
        partitions = partitions_of(client, tables, all_partition_keys(platform.config))
        states = list(verify(client, tables, partitions))
    unclean = [state for state in states if not state.is_clean]
    columns = ("partition", "ledger_rows", "index_rows", "found", "examples")
    table = {"unclean": dg.MetadataValue.md(markdown_table(columns, [*map(_row, unclean)]))} if unclean else {}
    return dg.AssetCheckResult(
        passed=not unclean,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{len(unclean)} of {len(states)} partitions differ: rag verify --repair" if unclean else "",
        metadata={
            "collection": tables.collection,
            "partitions": len(states),
            "failing_partitions": len(unclean),
            "ledger_rows": sum(state.ledger_rows for state in states),
            "index_rows": sum(state.index_rows for state in states),
            "searched_by_own_vector": sum(state.sampled for state in states),
            **table,
        },
    )


def _row(state: PartitionState) -> dict[str, Any]:
    found = ", ".join(f"{count:,} {kind}" for kind, count in state.counts.items() if count)
    examples = ", ".join(chunk_id for ids in state.examples.values() for chunk_id in ids)
    return {
        "partition": state.partition_key,
        "ledger_rows": state.ledger_rows,
        "index_rows": state.index_rows,
        "found": found if state.is_known else f"{found} (nobody knows the partition)",
        "examples": examples,
    }


def _check_verdict(config: RagConfig) -> dg.AssetChecksDefinition:
    condition = publication_condition(config, behind="index_verdict")

    @dg.multi_asset_check(
        specs=[
            dg.AssetCheckSpec(name=name, asset="index_verdict", description=said, automation_condition=condition)
            for name, said in CHECKS.items()
        ],
        can_subset=True,
    )
    def check_verdict(
        context: dg.AssetCheckExecutionContext, platform: PlatformResource
    ) -> Iterator[dg.AssetCheckResult]:
        """Show the measurements of the newest verdict on the index that rag.yaml asks for."""
        names = {key.name for key in context.op_execution_context.selected_asset_check_keys}
        with failures_by_class():
            verdict = newest_verdict(platform.store, generations(platform.store, platform.config).target.collection)
            for name in names if verdict is None else ():
                yield dg.AssetCheckResult(
                    asset_key="index_verdict", check_name=name, passed=False, severity=dg.AssetCheckSeverity.WARN,
                    description="not judged yet: the collection is incomplete",
                )  # fmt: skip
            for check in verdict_checks(verdict, platform.config.evaluation) if verdict is not None else ():
                if check.name in names:
                    yield _result(check, verdict.collection if verdict else "")

    return check_verdict


def _result(check: VerdictCheck, collection: str) -> dg.AssetCheckResult:
    metadata: dict[str, Any] = {"expected": check.threshold, "collection": collection}
    if check.value is not None:
        metadata = {"value": check.value, **metadata}
    if check.details:
        metadata["details"] = dg.MetadataValue.md(markdown_table(tuple(check.details[0]), [*map(dict, check.details)]))
    return dg.AssetCheckResult(
        asset_key="index_verdict",
        check_name=check.name,
        passed=check.passed,
        severity=dg.AssetCheckSeverity.ERROR,
        description="" if check.passed else _sentence(check),
        metadata=metadata,
    )


def _sentence(check: VerdictCheck) -> str:
    found = "" if check.value is None else f" Found {check.value:.4g}, expected {check.threshold}."
    return CHECKS[check.name] + found


def _alias_is_right(config: RagConfig) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset="published_index",
        description="The alias points at the collection that the manifest names.",
        automation_condition=publication_condition(config, behind="published_index", last=True),
    )
    def alias_is_right(
        context: dg.AssetCheckExecutionContext, platform: PlatformResource, milvus: MilvusResource
    ) -> dg.AssetCheckResult:
        """Compare the alias with the newest manifest."""
        with failures_by_class(), milvus.client() as client:
            manifest = latest_manifest(platform.store)
            finding = "nothing is published yet" if manifest is None else alias_finding(client, manifest)
            return dg.AssetCheckResult(
                passed=finding is None,
                severity=dg.AssetCheckSeverity.ERROR,
                description=finding or "",
                metadata={"alias": manifest.alias, "collection": manifest.collection} if manifest else {},
            )

    return alias_is_right
