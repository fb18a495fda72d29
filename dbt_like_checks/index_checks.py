"""Asset checks of the index: Milvus against its ledger, the verdict's measurements one by one, and the alias.

Like those of the declared tests they show and do not block: what may not be published is refused by `published_index`.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster import AssetCheckEvaluation, AssetCheckKey

from dbt_like_checks.evaluations import target_of
from rag_assets.materialize import RETRY, failures_by_class, markdown_table
from rag_core.index.anti_entropy import PartitionState, alias_finding, verify
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


def build_index_checks(partitions: dg.PartitionsDefinition[str]) -> Sequence[dg.AssetChecksDefinition]:
    """Make the checks of `index_partitions`, `index_verdict` and `published_index`."""
    return [_anti_entropy(partitions), check_verdict, alias_is_right]


def build_verify_job() -> "UnresolvedAssetJobDefinition":
    """Make the job that compares Milvus with its ledger, for the chosen partitions."""
    return dg.define_asset_job(
        VERIFY_JOB,
        selection=dg.AssetSelection.checks(AssetCheckKey(dg.AssetKey("index_partitions"), ANTI_ENTROPY)),
        description="Compare Milvus with its ledger, by two read paths. Changes nothing; `rag verify --repair` mends.",
    )


def _anti_entropy(partitions: dg.PartitionsDefinition[str]) -> dg.AssetChecksDefinition:
    spec = dg.AssetCheckSpec(
        name=ANTI_ENTROPY,
        asset="index_partitions",
        description="Milvus holds what the ledger says: listed by id, and sampled rows are found by their own vectors.",
        partitions_def=partitions,
    )

    @dg.multi_asset_check(
        name="compare_with_ledger", specs=[spec], can_subset=True, retry_policy=RETRY, pool="milvus_writes"
    )
    def compare_with_ledger(
        context: dg.AssetCheckExecutionContext, platform: PlatformResource, milvus: MilvusResource
    ) -> Iterator[AssetCheckEvaluation]:
        op = context.op_execution_context
        keys = list(op.partition_keys) if op.has_partitions else partitions.get_partition_keys()
        with failures_by_class(), milvus.client() as client:
            tables = ledger_tables(platform.store, platform.config)
            for state in verify(client, tables, dict.fromkeys(keys, True)):
                yield AssetCheckEvaluation(
                    asset_key=dg.AssetKey("index_partitions"),
                    check_name=ANTI_ENTROPY,
                    passed=state.is_clean,
                    severity=dg.AssetCheckSeverity.ERROR,
                    description=_said(state),
                    metadata=_metadata(state),
                    target_materialization_data=target_of(context, "index_partitions", state.partition_key),
                    blocking=False,
                    partition=state.partition_key,
                )

    return compare_with_ledger


def _said(state: PartitionState) -> str:
    if state.is_clean:
        return f"{state.index_rows:,} rows as the ledger says, {state.sampled} of them found by their own vectors"
    found = ", ".join(f"{count:,} {kind}" for kind, count in state.counts.items() if count)
    return f"Milvus holds {state.index_rows:,} rows, the ledger {state.ledger_rows:,}: {found}; rag verify --repair"


def _metadata(state: PartitionState) -> dict[str, dg.MetadataValue]:
    counts = {kind: dg.MetadataValue.int(count) for kind, count in state.counts.items()}
    rows = [{"found": kind, "chunk_ids": ", ".join(ids)} for kind, ids in state.examples.items()]
    examples = {"examples": dg.MetadataValue.md(markdown_table(("found", "chunk_ids"), rows))} if rows else {}
    return {
        "partition": dg.MetadataValue.text(state.partition_key),
        "collection": dg.MetadataValue.text(state.collection),
        "ledger_rows": dg.MetadataValue.int(state.ledger_rows),
        "index_rows": dg.MetadataValue.int(state.index_rows),
        "sampled": dg.MetadataValue.int(state.sampled),
        **counts,
        **examples,
    }


@dg.multi_asset_check(
    specs=[dg.AssetCheckSpec(name=name, asset="index_verdict", description=said) for name, said in CHECKS.items()]
)
def check_verdict(context: dg.AssetCheckExecutionContext, platform: PlatformResource) -> Iterator[dg.AssetCheckResult]:
    """Show the measurements of the newest verdict on the index that rag.yaml asks for."""
    with failures_by_class():
        config = platform.config
        verdict = newest_verdict(platform.store, generations(platform.store, config).target.collection)
        for name in CHECKS if verdict is None else ():
            yield dg.AssetCheckResult(
                asset_key="index_verdict", check_name=name, passed=False, severity=dg.AssetCheckSeverity.WARN,
                description="not judged yet: the collection is incomplete",
            )  # fmt: skip
        for check in verdict_checks(verdict, config.evaluation) if verdict is not None else ():
            yield _result(check, verdict.collection if verdict else "")


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
        metadata=metadata,
    )


@dg.asset_check(asset="published_index", description="The alias points at the collection that the manifest names.")
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
