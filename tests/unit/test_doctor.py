"""What the doctor finds on machines that lack something; the parts looked at are real files, programs and sockets."""

import socket
from collections.abc import Mapping
from pathlib import Path

import pytest

from rag_core.config_loader import LoadedConfig, load_config
from rag_core.doctor import machine
from rag_core.doctor.finding import Finding
from rag_core.doctor.java import require_java
from rag_core.doctor.run import run_doctor
from rag_core.errors import PermanentError
from tests.redis_server import needs_redis, running_redis

REDIS = "RAG_SERVING__CACHE__REDIS_URL"


def load(tmp_path: Path, more: str = "", root: str = "corpus", env: Mapping[str, str] | None = None) -> LoadedConfig:
    (tmp_path / "corpus").mkdir(exist_ok=True)
    (tmp_path / "corpus" / "a.md").write_text("a")
    path = tmp_path / "rag.yaml"
    path.write_text(f"store: {{root: ./data}}\nsources: [{{name: handbook, kind: files, root: {root}}}]\n{more}")
    return load_config(path, env or {}, check_files=False)


def find(findings: list[Finding], name: str) -> Finding:
    return next(finding for finding in findings if finding.name == name)


def java(folder: Path, banner: str, status: int = 0) -> dict[str, str]:
    program = folder / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho '{banner}' >&2\nexit {status}\n")
    program.chmod(0o755)
    return {"JAVA_HOME": str(folder), "PATH": "/usr/bin:/bin"}


@pytest.mark.parametrize(
    ("banner", "status", "wanted"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 0, None),
        ('openjdk version "21" 2023-09-19', 0, None),
        ('java version "1.8.0_292"', 0, "is version 8"),
        ('openjdk version "11.0.2" 2019-01-15', 0, "is version 11"),
        ("The operation couldn't be completed. Unable to locate a Java Runtime.", 1, "does not run"),
    ],
)
def test_java(tmp_path: Path, banner: str, status: int, wanted: str | None) -> None:
    env = java(tmp_path / "jdk", banner.replace("'", ""), status)
    if wanted is None:
        require_java(env)
        return
    with pytest.raises(PermanentError, match=wanted) as caught:
        require_java(env)
    assert "Java 17 or newer is needed for Spark" in str(caught.value)
    assert "openjdk-17-jre-headless" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_java_at_all(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="none was found"):
        require_java({"PATH": str(tmp_path)})
    finding = find(run_doctor(load(tmp_path), {"PATH": str(tmp_path)}), "Java")
    assert (finding.status, "apt install" in finding.remedy) == ("warn", True)


def test_everything_needed_is_looked_at_once(tmp_path: Path) -> None:
    env = java(tmp_path / "jdk", 'openjdk version "17.0.1"')
    findings = run_doctor(load(tmp_path), env)
    assert [finding.name for finding in findings] == [
        "Python", "Java", "memory", "store", "source handbook", "embedding model", "bf16", "Milvus", "telemetry",
    ]  # fmt: skip
    assert all(finding.remedy for finding in findings if finding.status == "fail")
    assert find(findings, "source handbook").status == "ok"
    assert find(findings, "embedding model").status == "ok"
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
def test_missing_and_empty_sources(tmp_path: Path) -> None:
    missing = find(run_doctor(load(tmp_path, root="nowhere"), {}), "source handbook")
    assert missing.status == "fail"
    assert str(tmp_path / "nowhere") in missing.detail
    (tmp_path / "empty").mkdir()
    assert find(run_doctor(load(tmp_path, root="empty"), {}), "source handbook").status == "warn"


def test_store_root_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    finding = find(run_doctor(load(tmp_path), {}), "store")
    assert finding.status == "fail"
    assert "cannot be written" in finding.detail


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ("remote: 'sc://127.0.0.1:{}/;token=secret'", "Spark Connect"),
        ("master: 'spark://127.0.0.1:{},b:1'", "Spark master"),
    ],
)
def test_a_spark_cluster(tmp_path: Path, setting: str, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        more = f"spark: {{{setting.format(server.getsockname()[1])}}}"
        findings = run_doctor(load(tmp_path, more), {"PATH": str(tmp_path)})
    assert find(findings, name).status == "ok"
    assert find(findings, "Java").status == ("ok" if "remote" in setting else "warn")  # which drives it from here
    finding = find(run_doctor(load(tmp_path, more), {}), name)
    assert finding.status == "fail"
    assert "secret" not in finding.detail
    assert "docs/spark.md" in finding.remedy


@pytest.mark.slow
def test_milvus_server(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        more = f"index: {{uri: 'http://127.0.0.1:{port}', timeout_s: 0.5}}"
        mute = find(run_doctor(load(tmp_path, more), {}), "Milvus")  # it listens, and is no Milvus
    gone = find(run_doctor(load(tmp_path, more), {}), "Milvus")
    for finding in (mute, gone):
        assert finding.status == "fail"
        assert f"127.0.0.1:{port}" in finding.detail
        assert "start it" in finding.remedy


@pytest.mark.slow
@needs_redis
def test_redis(tmp_path: Path) -> None:
    with running_redis(tmp_path) as redis:
        address = redis.url.get_secret_value().replace("redis://", "redis://:secret@")
        with redis.client() as client:
            client.config_set("requirepass", "secret")
        assert find(run_doctor(load(tmp_path, env={REDIS: address}), {}), "Redis").status == "ok"
        other = find(run_doctor(load(tmp_path, env={REDIS: address.replace("secret", "other")}), {}), "Redis")
        assert (other.status, "other" in other.detail) == ("fail", False)
    gone = find(run_doctor(load(tmp_path, env={REDIS: address}), {}), "Redis")
    assert (gone.status, "secret" in gone.detail) == ("fail", False)
    assert "RAG_SERVING__CACHE__REDIS_URL" in gone.remedy


def test_unknown_model(tmp_path: Path) -> None:
    finding = find(run_doctor(load(tmp_path, "embedding: {model: ./nothing}"), {}), "embedding model")
    assert finding.status == "fail"
    assert str(tmp_path / "nothing") in finding.detail


def test_telemetry(tmp_path: Path) -> None:
    loaded, env = load(tmp_path), {"DAGSTER_HOME": str(tmp_path)}
    assert find(run_doctor(loaded, env), "telemetry").status == "warn"
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    assert find(run_doctor(loaded, env), "telemetry").status == "ok"


def test_little_memory_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_container_limit", lambda: 1024.0**3)
    finding = find(run_doctor(load(tmp_path), {}), "memory")
    assert (finding.status, finding.detail) == ("warn", "1.0 GiB available of 1.0 GiB; 3.0 GiB is advised")
