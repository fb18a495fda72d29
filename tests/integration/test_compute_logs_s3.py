"""Logs of runs go to S3 by the section of deploy/dagster/cluster.yaml, and another machine reads them there."""

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml

from tests.integration.s3_store_helpers import BUCKET, S3World
from tests.unit.deploy.files import DEPLOY, ROOT, read

pytestmark = pytest.mark.slow

RUN = """
import sys
import dagster as dg

@dg.op
def speak() -> None:
    print("said in a step")

@dg.job(executor_def=dg.in_process_executor)
def talk() -> None:
    speak()

if __name__ == "__main__":
    with dg.DagsterInstance.get() as instance:
        done = dg.execute_job(dg.reconstructable(talk), instance)
        sys.exit(0 if done.success else 1)
"""


def home(folder: Path, s3: S3World) -> Path:
    """Make a DAGSTER_HOME whose logs are where the cluster's are."""
    logs = read(DEPLOY / "dagster" / "cluster.yaml")["compute_logs"]
    logs["config"] |= {"endpoint_url": s3.proxy.url, "local_dir": str(folder / "logs")}
    folder.mkdir()
    (folder / "dagster.yaml").write_text(yaml.safe_dump({"compute_logs": logs, "telemetry": {"enabled": False}}))
    return folder


def test_a_log_that_one_machine_writes_another_reads(
    tmp_path: Path, s3: S3World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_LOGS_BUCKET", BUCKET)
    (tmp_path / "talk.py").write_text(RUN)
    rule = s3.proxy.spoil("503", lambda asked: asked.kind == "PutObject")
    env = {**os.environ, "DAGSTER_HOME": str(home(tmp_path / "here", s3)), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "talk.py"], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert rule.done == 1
    keys = [one["Key"] for one in s3.client.list_objects_v2(Bucket=BUCKET, Prefix="dagster/compute-logs/")["Contents"]]
    run_id, step = next(key.removesuffix(".out").split("/")[-3::2] for key in keys if key.endswith(".out"))
    with dg.DagsterInstance.from_config(str(home(tmp_path / "elsewhere", s3))) as instance:
        log = instance.compute_log_manager.get_log_data([run_id, "compute_logs", step])
        assert log.stdout is not None
        assert b"said in a step" in log.stdout
        assert instance.compute_log_manager.is_capture_complete([run_id, "compute_logs", step])
