"""The whole pipeline with its store and its source in S3: the same index as from local folders."""

from pathlib import Path
from typing import Any

import pytest

from rag_assets.cli.app import EXIT_PERMANENT
from rag_core.config_loader import load_config
from rag_core.config_store import S3Config
from rag_core.doctor.finding import Finding
from rag_core.doctor.run import run_doctor
from rag_core.tables.store import Store
from tests.conftest import REPO
from tests.integration.pipeline_helpers import Platform, search_json
from tests.integration.s3_store_helpers import BUCKET, S3World
from tests.production.services import upload

CORPUS = REPO / "examples" / "corpus" / "mail"
QUESTION = "When is the family day?"


def findings(folder: Path, store: dict[str, Any]) -> Finding:
    folder.mkdir(exist_ok=True)
    Platform(folder, [{"name": "a", "kind": "files", "root": str(CORPUS)}], {"store": store})
    found = run_doctor(load_config(folder / "rag.yaml"), {})
    return next(one for one in found if one.name == "store")


def test_doctor_uses_the_store_once(s3: S3World, tmp_path: Path) -> None:
    settings = {"root": f"s3://{BUCKET}/doctor", "s3": {"endpoint_url": s3.proxy.url}}
    store = Store(settings["root"], S3Config(endpoint_url=s3.proxy.url))
    found = findings(tmp_path / "a", settings)
    assert found.status == "ok"
    assert "can be listed, written (also under a condition), read and deleted; encryption: " in found.detail
    assert s3.keys(store) == []
    kinds = {"list": "ListObjects", "write": "PutObject", "read": "GetObject", "delete": "DeleteObject"}
    for word, kind in kinds.items():
        s3.proxy.reset()
        s3.proxy.spoil("403", lambda asked, kind=kind: asked.kind == kind, times=None)
        found = findings(tmp_path / "a", settings)
        assert found.status == "fail"
        assert found.detail.startswith(f"cannot {word} s3://{BUCKET}/doctor"), word
        assert "AccessDenied: Access Denied; allow what docs/s3.md lists" in found.detail
    found = findings(tmp_path / "a", {**settings, "root": "s3://nobodys-bucket/doctor"})
    assert "NoSuchBucket" in found.detail
    found = findings(tmp_path / "a", {**settings, "s3": {"endpoint_url": "http://127.0.0.1:9"}})
    assert (found.status, "EndpointConnectionError" in found.detail) == ("fail", True)


def test_doctor_finds_a_server_without_conditional_writes(s3: S3World, tmp_path: Path) -> None:
    s3.proxy.ignores_conditions = True
    try:
        found = findings(tmp_path / "a", {"root": f"s3://{BUCKET}/old", "s3": {"endpoint_url": s3.proxy.url}})
    finally:
        s3.proxy.ignores_conditions = False
    assert found.status == "fail"
    assert "overwrites an object that a write asked it not to (If-None-Match)" in found.detail


@pytest.mark.milvus
@pytest.mark.slow
def test_the_same_index_from_s3_and_from_folders(s3: S3World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Faults that pass happen meanwhile; a second run commits nothing; pages, backups and commands work."""
    upload(s3.url, BUCKET, "docs/", CORPUS)
    monkeypatch.chdir(tmp_path)  # what must be on a local disk lies below
    source = {"name": "handbook", "kind": "s3", "bucket": BUCKET, "prefix": "docs", "endpoint_url": s3.proxy.url}
    store = {"root": f"s3://{BUCKET}/store", "s3": {"endpoint_url": s3.proxy.url}}
    remote = Platform(tmp_path / "remote", [source], {"store": store})
    local = Platform(tmp_path / "local", [{"name": "handbook", "kind": "files", "root": str(CORPUS)}])
    workers = remote.store.local_path("work", "resident")
    workers.parent.mkdir(parents=True)
    workers.symlink_to((local.root / "data" / "work" / "resident").resolve())  # both use one worker
    try:
        commits = s3.proxy.spoil("lost_answer", lambda asked: asked.is_commit and "/embeddings/" in asked.path)
        slow = s3.proxy.spoil("503", lambda asked: asked.kind == "PutObject", times=5)
        torn = s3.proxy.spoil("torn_answer", lambda asked: asked.kind == "GetObject" and "work/" in asked.path)
        done = remote.rag("run")
        assert done.returncode == 0, done.stdout + done.stderr
        assert (commits.done, slow.done, torn.done) == (1, 5, 1)
        assert local.run()["upserted"] > 0
        before = remote.tables()
        mine, theirs = (sorted(row[0] for row in one["chunks"]) for one in (before, local.tables()))
        assert mine == theirs
        s3.proxy.reset()
        done = remote.rag("run")
        assert "0 tables committed" in done.stdout, done.stdout + done.stderr
        assert remote.tables() == before
        assert s3.proxy.counts()["PutObject"] < 20
        found = [[hit["chunk_id"] for hit in search_json(one, QUESTION, "hybrid")] for one in (remote, local)]
        assert found[0] == found[1]
        assert found[0]
        for command in (["ask", QUESTION], ["report"]):
            done = remote.rag(*command)
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        assert "reports/index.html" in s3.keys(remote.store, "reports/")
        done = remote.rag("backup", "take", "--to", f"s3://{BUCKET}/backup")
        assert done.returncode == 0, done.stderr
        assert s3.keys(remote.store, "work/embedding/") == []  # nothing of the run is left
        assert s3.keys(remote.store, "work/spark/") == []
        assert s3.uploads() == []
        s3.proxy.spoil("403", lambda _asked: True, times=None)
        done = remote.rag("status")
        assert done.returncode == EXIT_PERMANENT
        assert "StoreRefusedError" in done.stderr
        assert "AccessDenied" in " ".join(done.stderr.split())
    finally:
        s3.proxy.reset()
        remote.stop()
        local.stop()
