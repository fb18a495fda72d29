"""The code location: it loads from anywhere with an empty environment, and its assets say what they are."""

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from definitions import build_defs
from rag_core.config_loader import load_config
from rag_core.partitions import all_partition_keys
from tests.conftest import REPO

PARTITIONED = ("documents", "chunks", "embeddings", "index_partitions")


@pytest.fixture(scope="module")
def defs() -> dg.Definitions:
    return build_defs(config_path=REPO / "rag.yaml")


@pytest.mark.slow
def test_loads_with_an_empty_environment_from_any_folder(tmp_path: Path) -> None:
    script = "import definitions, sys; print(len(definitions.defs.resolve_all_asset_keys())); "
    script += (
        "heavy = {'torch', 'pymilvus', 'kreuzberg', 'transformers', 'great_expectations', 'matplotlib', 'scipy'}; "
    )
    script += "heavy &= set(sys.modules); assert not heavy, heavy"
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:definitions", "-c", script],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPO)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout.strip(), done.stderr) == ("7", "")
    assert not list(tmp_path.iterdir()), "loading writes nothing"


def test_definitions_are_valid(defs: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(defs)


def test_assets_describe_themselves(defs: dg.Definitions) -> None:
    for key in defs.resolve_all_asset_keys():
        spec = defs.resolve_assets_def(key).specs_by_key[key]
        assert spec.description, key
        assert spec.owners, key
        assert spec.kinds, key
        assert spec.code_version, key
        assert spec.group_name in {"ingest", "index"}, key


def test_partitions_are_flat_keys_of_the_sources(defs: dg.Definitions) -> None:
    expected = all_partition_keys(load_config(REPO / "rag.yaml").config)
    assert expected == [f"handbook__{bucket:02d}" for bucket in range(8)]
    for name in PARTITIONED:
        asset = defs.resolve_assets_def(name)
        assert asset.partitions_def is not None
        assert asset.partitions_def.get_partition_keys() == expected
        assert asset.backfill_policy == dg.BackfillPolicy.multi_run(max_partitions_per_run=32)


@pytest.mark.parametrize(
    "job",
    [
        *("build_index", "publish_index", "maintain_tables", "build_source_handbook", "test_tables", "verify_index"),
        *(f"build_{name}" for name in PARTITIONED),
    ],
)
def test_jobs_exist(defs: dg.Definitions, job: str) -> None:
    assert defs.resolve_job_def(job).description


def test_every_table_has_checks_that_say_what_they_look_at(defs: dg.Definitions) -> None:
    specs = [spec for checks in defs.asset_checks or () for spec in checks.check_specs]
    tested = {spec.asset_key.to_user_string() for spec in specs}
    assert tested == {*PARTITIONED, "retrieval_eval", "index_verdict", "published_index"}
    assert all(spec.description for spec in specs)
    assert not any(spec.blocking for spec in specs), "a blocking check would stop every partition of a packed run"


def test_jobs_of_the_stages_run_the_declared_tests_and_do_not_read_the_index_back(defs: dg.Definitions) -> None:
    for name in ("build_index", "build_source_handbook"):
        checks = {key.name for key in defs.resolve_job_def(name).asset_layer.asset_graph.asset_check_keys}
        assert "unique__chunk_id" in checks, name
        assert "anti_entropy" not in checks, name
