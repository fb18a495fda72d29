"""Dagster checks of the declared tests: one evaluation about all partitions, whatever the run is for."""

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
        asset_checks=build_checks(config),
        jobs=[build_test_job(config)],
        resources={"platform": PlatformResource(config_path=str(tmp_path / "rag.yaml"))},
    )


def evaluations(
    defs: dg.Definitions, instance: dg.DagsterInstance, tags: dict[str, str]
) -> dict[str, dg.AssetCheckEvaluation]:
    job = defs.resolve_job_def(TEST_JOB)
    result = job.execute_in_process(instance=instance, tags=tags)
    assert result.success
    found = result.get_asset_check_evaluations()
    return {one.check_name: one for one in found if one.asset_key == dg.AssetKey("documents")}


@pytest.mark.slow
def test_an_evaluation_is_about_all_partitions_whichever_the_run_is_for(defs: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(defs)
    with dg.DagsterInstance.ephemeral() as instance:
        range_tags = {"dagster/asset_partition_range_start": KEYS[0], "dagster/asset_partition_range_end": KEYS[2]}
        for tags in (range_tags, {"dagster/partition": KEYS[2]}, {}):
            found = evaluations(defs, instance, tags)
            failed = {name: one for name, one in found.items() if not one.passed}
            assert set(failed) == {"accepted_values__status", "reason_given"}
            status = failed["accepted_values__status"]
            assert status.severity is dg.AssetCheckSeverity.ERROR
            assert failed["reason_given"].severity is dg.AssetCheckSeverity.WARN
            assert status.description and status.description.startswith(f"{KEYS[1]}: ")
            assert status.metadata["failing_rows"].value == 1
            assert (status.metadata["partitions"].value, status.metadata["failing_partitions"].value) == (3, 1)
            assert status.metadata["held_back"].value == KEYS[1]
            assert "| handbook__01 | handbook__01-doc1 | fine |" in status.metadata["failing"].value
            assert "| handbook__01 |" in status.metadata["by_partition"].value
            assert found["not_null__doc_id"].description == "passed in all 3 partitions"
