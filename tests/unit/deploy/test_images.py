"""The Dockerfile passes its lint, copies what is there, and its images would hold the whole project."""

import fnmatch
import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.unit.deploy.files import BIN, DEPLOY, ROOT, run

IMAGES = DEPLOY / "images"
DOCKERFILE = (IMAGES / "Dockerfile").read_text(encoding="utf-8")
TARGETS = ("app", "serving", "worker", "worker-cuda", "spark")


def tracked() -> set[str]:
    """Name the files that version control knows and that are there."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return {name for name in listed if (ROOT / name).exists()}


def packaged() -> set[str]:
    """Name the files that the project's packages consist of."""
    packages = ("rag_core/", "rag_assets/", "resources/", "io_managers/", "sensors/", "dbt_like_checks/", "serving/")
    return {name for name in tracked() if name.startswith((*packages, "definitions.py"))}


def let_through(name: str) -> bool:
    """Tell whether .dockerignore lets a file into the build: the last pattern that matches decides."""
    is_in = True
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.strip().removeprefix("!")
        if pattern and not pattern.startswith("#"):
            parts = name.split("/")
            parents = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
            if any(fnmatch.fnmatch(parent, pattern) for parent in parents):
                is_in = line.startswith("!")
    return is_in


def test_the_dockerfile_passes_its_lint() -> None:
    done = run("hadolint", "--config", "deploy/images/hadolint.yaml", "deploy/images/Dockerfile")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("target", TARGETS)
def test_no_image_runs_as_root(target: str) -> None:
    stage = DOCKERFILE.partition(f" AS {target}\n")[2].partition("\nFROM ")[0]
    assert re.findall(r"^USER (.*)$", stage, re.MULTILINE) == ["10001:10001"]


def test_the_build_sees_what_it_copies_and_nothing_private() -> None:
    copied = re.findall(r"^COPY (?!--from)(?:--\S+ )*(.*) \S+$", DOCKERFILE, re.MULTILINE)
    names = {name for line in copied for name in line.split() if name != "."}
    assert names == {"pyproject.toml", "constraints.txt", "deploy/images/spark-entrypoint.sh"}
    for name in names | packaged() | {"README.md", "LICENSE"}:
        assert (ROOT / name).exists(), name
        assert let_through(name), name
    for name in ("rag.yaml", "data/tables", ".env", "deploy/compose/.env", ".git/config", "examples/corpus", "tests"):
        assert not let_through(name), name


def test_sparks_home_is_where_the_base_has_its_python() -> None:
    version = re.search(r"python:(\d+\.\d+)", DOCKERFILE)
    assert version is not None
    assert f"/opt/venv/lib/python{version[1]}/site-packages/pyspark" in DOCKERFILE


@pytest.mark.slow
def test_the_installed_project_is_whole(tmp_path: Path) -> None:
    """An image installs a wheel of what the build sees: pages, templates and declared tests are in it."""
    for name in tracked():
        if let_through(name):
            (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / "src" / name)
    options = ("-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path))
    done = run("pip", "wheel", *options, str(tmp_path / "src"))
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    assert packaged() - names == set()
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "deploy/"))]


def stand_in(path: Path) -> Path:
    """Write a program that prints its arguments, one in a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    path.chmod(0o755)
    return path


def entrypoint(tmp_path: Path, *arguments: str, **variables: str) -> list[str]:
    stand_in(tmp_path / "bin" / "java")
    stand_in(tmp_path / "spark" / "bin" / "spark-submit")
    path = f"{tmp_path / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin"
    env = {"PATH": path, "SPARK_HOME": str(tmp_path / "spark"), **variables}
    command = ["bash", str(IMAGES / "spark-entrypoint.sh"), *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_an_executor_is_started_with_what_spark_tells_it(tmp_path: Path) -> None:
    told = {
        "SPARK_DRIVER_URL": "spark://CoarseGrainedScheduler@rag-spark-driver:7078",
        "SPARK_EXECUTOR_ID": "3",
        "SPARK_EXECUTOR_CORES": "4",
        "SPARK_EXECUTOR_MEMORY": "2g",
        "SPARK_APPLICATION_ID": "spark-1",
        "SPARK_EXECUTOR_POD_IP": "10.0.0.7",
        "SPARK_EXECUTOR_POD_NAME": "rag-exec-3",
        "SPARK_RESOURCE_PROFILE_ID": "0",
        **{f"SPARK_JAVA_OPT_{number}": f"-Dn={number}" for number in range(12)},
        "SPARK_JAVA_OPT_1": "-Dwith=an equals=sign",
    }
    asked = entrypoint(tmp_path, "executor", **told)
    options = ["-Dn=0", "-Dwith=an equals=sign", *(f"-Dn={number}" for number in range(2, 12))]
    assert asked[:12] == options
    assert asked[12:14] == ["-Xms2g", "-Xmx2g"]
    main = "org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend"
    rest = asked[asked.index(main) + 1 :]
    assert dict(zip(rest[::2], rest[1::2], strict=True)) == {
        "--driver-url": told["SPARK_DRIVER_URL"], "--executor-id": "3", "--cores": "4", "--app-id": "spark-1",
        "--hostname": "10.0.0.7", "--resourceProfileId": "0", "--podName": "rag-exec-3",
    }  # fmt: skip


def test_the_executors_class_is_one_that_pyspark_has() -> None:
    jars = next(Path(BIN.parent).glob("lib/python*/site-packages/pyspark/jars/spark-kubernetes_*.jar"))
    with zipfile.ZipFile(jars) as jar:
        assert "org/apache/spark/scheduler/cluster/k8s/KubernetesExecutorBackend.class" in jar.namelist()


def test_connect_is_a_submission_with_the_options_given(tmp_path: Path) -> None:
    asked = entrypoint(tmp_path, "connect", "--master", "local[2]")
    name = "org.apache.spark.sql.connect.service.SparkConnectServer"
    assert asked == ["--class", name, "--master", "local[2]", "spark-internal"]
    assert entrypoint(tmp_path, "echo", "anything else") == ["anything else"]
