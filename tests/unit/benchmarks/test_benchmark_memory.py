"""Roles of the processes of a run, and peaks between two times."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.memory import MIB, PIPELINE, ROLES, MemorySampler, Sample, high_water_bytes, peak_between, role_of
from rag_core.index.lite_files import LiteFiles

PYTHON = "/usr/bin/python3"


@pytest.mark.parametrize(
    ("command", "role"),
    [
        (["/usr/lib/jvm/java-17/bin/java", "-cp", "x", "org.apache.spark.deploy.SparkSubmit"], "JVM"),
        ([PYTHON, "-m", "pyspark.daemon", "pyspark.worker"], "Spark Python worker"),
        ([PYTHON, "-m", "pyspark.sql.worker.plan_data_source_read"], "Spark Python worker"),
        ([PYTHON, "-m", "rag_core.parsing.child", "rag_core.parsing.parse:parse_object"], "parser child"),
        ([PYTHON, "-m", "rag_core.embedding.worker", "--manifest", "/s/work/m.json"], "embedding worker"),
        ([PYTHON, "-m", "rag_core.embedding.resident", "--socket", "/s/work/resident/0.sock"], "embedding worker"),
        ([PYTHON, "-m", "rag_core.index.lite_server", "--data-dir", "/s/milvus/data"], "Milvus supervisor"),
        ([PYTHON, "-m", "milvus_lite", "server", "--data-dir", "/s/milvus/data"], "Milvus Lite server"),
        (["tail", "-F", "-c", "+0", "/s/dagster/storage/1/compute_logs/a.err"], "Dagster log capture"),
        (["/bin/bash", "/x/spark-submit", "pyspark-shell"], "other"),
        ([], "starting"),
    ],
)
def test_role_of_command(command: list[str], role: str) -> None:
    assert role_of(command) == role
    assert role in ROLES or role == "starting"


def test_roles_are_listed_once() -> None:
    assert len(set(ROLES)) == len(ROLES)


def test_fork_that_has_not_started_its_program_is_not_counted() -> None:
    root = [PYTHON, "-c", "main()", "run", "--json"]
    assert role_of(root, root_command=root) == "starting"
    assert role_of([*root, "x"], root_command=root) == "other"


@pytest.mark.slow
def test_sampler_sees_the_memory_of_root_and_child(tmp_path: Path) -> None:
    child = "held = bytearray(64 << 20)\nimport time; time.sleep(1.5)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}, 'rag_core.parsing.child'])"
    process = subprocess.Popen([sys.executable, "-c", parent])
    with MemorySampler(process.pid, LiteFiles(tmp_path / "data"), interval_s=0.05) as sampler:
        process.wait()
    assert sampler.peaks["parser child"].rss_bytes > 64 * MIB
    assert 0 < sampler.peaks[PIPELINE].rss_bytes < 64 * MIB
    assert sampler.peaks["parser child"].processes == 1
    assert sampler.tree_rss_bytes > 64 * MIB


def test_high_water_of_a_process_that_ended_is_zero() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert high_water_bytes(process.pid) == 0


def test_peak_between_takes_only_samples_in_the_span() -> None:
    now = time.time()
    samples = [Sample(now, {"JVM": 5}), Sample(now + 1, {"JVM": 3, PIPELINE: 1}), Sample(now + 2, {"JVM": 9})]
    assert peak_between(samples, now + 0.5, now + 1.5) == {"JVM": 3, PIPELINE: 1}
