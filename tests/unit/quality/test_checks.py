"""Dagster checks of the declared tests: an evaluation for each partition, in runs of a range, of one, and of none."""

from pathlib import Path

import dagster as dg
import pytest

from dbt_like_checks.checks import build_checks, build_test_job
from rag_assets.jobs import TEST_JOB
from rag_core.partitions import all_partition_keys
from rag_core.tables.store import Store
from resources.platform import PlatformResource
from tests.unit.quality.tables import config_of, document_rows, write

KEYS = ("handbook__00", "handbook__01", "handbook__02")


@pytest.fixture
def defs(tmp_path: Path) -> dg.Definitions:
    (tmp_path / "rag.yaml").write_text(
        f"store: {{root: {tmp_path}}}\nsources: [{{name: handbook, kind: files, root: {tmp_path}}}]\n"
    )
    config = config_of(tmp_path).model_copy(update={"buckets": 8})
    partitions = dg.StaticPartitionsDefinition(all_partition_keys(config))
    assets = [dg.AssetSpec(name, partitions_def=partitions) for name in ("documents", "chunks", "embeddings")]
    others = [dg.AssetSpec("index_partitions", partitions_def=partitions), dg.AssetSpec("retrieval_eval")]
    rows = [row for key in KEYS for row in document_rows(3, key=key)]
    rows[4]["status"] = "fine"
    write(Store(str(tmp_path)), "documents", rows)
    return dg.Definitions(
        assets=[*assets, *others],
        asset_checks=build_checks(config, partitions),
        jobs=[build_test_job(config)],
        resources={"platform": PlatformResource(config_path=str(tmp_path / "rag.yaml"))},
    )


def evaluations(
    defs: dg.Definitions, instance: dg.DagsterInstance, tags: dict[str, str]
) -> list[dg.AssetCheckEvaluation]:
    job = defs.resolve_job_def(TEST_JOB)
    result = job.execute_in_process(instance=instance, tags=tags)
    assert result.success
    return [one for one in result.get_asset_check_evaluations() if one.asset_key == dg.AssetKey("documents")]


def test_each_partition_has_an_evaluation_of_its_own(defs: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(defs)
    with dg.DagsterInstance.ephemeral() as instance:
        range_tags = {"dagster/asset_partition_range_start": KEYS[0], "dagster/asset_partition_range_end": KEYS[2]}
        of_range = evaluations(defs, instance, range_tags)
        assert {one.partition for one in of_range} == set(KEYS)
        failed = {(one.partition, one.check_name): one for one in of_range if not one.passed}
        assert set(failed) == {(KEYS[1], "accepted_values__status"), (KEYS[1], "reason_given")}
        status = failed[KEYS[1], "accepted_values__status"]
        assert status.severity is dg.AssetCheckSeverity.ERROR
        assert failed[KEYS[1], "reason_given"].severity is dg.AssetCheckSeverity.WARN
        assert status.metadata["failing_rows"].value == 1
        assert status.metadata["holds_back"].value is True
        assert "| handbook__01-doc1 | fine |" in status.metadata["failing"].value
        assert {one.partition for one in evaluations(defs, instance, {"dagster/partition": KEYS[2]})} == {KEYS[2]}
        assert {one.partition for one in evaluations(defs, instance, {})} == set(KEYS)
