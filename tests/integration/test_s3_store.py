"""The whole pipeline with its store and its source in S3: the same index as from local folders."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rag_assets.cli.app import EXIT_PERMANENT
from rag_core.config_loader import load_config
from rag_core.config_store import S3Config
from rag_core.doctor import Finding, run_doctor
from rag_core.tables.store import Store
from tests.conftest import REPO
from tests.integration.pipeline_helpers import Platform, search_json
from tests.integration.s3_store_helpers import BUCKET, S3World, s3_world
from tests.production.services import upload

CORPUS = REPO / "examples" / "corpus" / "mail"
QUESTION = "When is the family day?"


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3World]:
    with s3_world(tmp_path_factory.mktemp("s3")) as world:
        yield world


@pytest.fixture
def world(started: S3World) -> Iterator[S3World]:
    started.proxy.reset()
    yield started
    started.proxy.reset()


def findings(folder: Path, store: dict[str, Any]) -> Finding:
    folder.mkdir(exist_ok=True)
    Platform(folder, [{"name": "a", "kind": "files", "root": str(CORPUS)}], {"store": store})
    found = run_doctor(load_config(folder / "rag.yaml"), {})
    return next(one for one in found if one.name == "store")


def test_doctor_uses_the_store_once(world: S3World, tmp_path: Path) -> None:
    settings = {"root": f"s3://{BUCKET}/doctor", "s3": {"endpoint_url": world.proxy.url}}
    store = Store(settings["root"], S3Config(endpoint_url=world.proxy.url))
    found = findings(tmp_path / "a", settings)
    assert found.status == "ok"
    assert "can be listed, written (also under a condition), read and deleted; encryption: " in found.detail
    assert world.keys(store) == []
    kinds = {"list": "ListObjects", "write": "PutObject", "read": "GetObject", "delete": "DeleteObject"}
    for word, kind in kinds.items():
        world.proxy.reset()
        world.proxy.spoil("403", lambda asked, kind=kind: asked.kind == kind, times=None)
        found = findings(tmp_path / "a", settings)
        assert found.status == "fail"
        assert found.detail.startswith(f"cannot {word} s3://{BUCKET}/doctor"), word
        assert "AccessDenied: Access Denied; allow what docs/s3.md lists" in found.detail
    found = findings(tmp_path / "a", {**settings, "root": "s3://nobodys-bucket/doctor"})
    assert "NoSuchBucket" in found.detail
    found = findings(tmp_path / "a", {**settings, "s3": {"endpoint_url": "http://127.0.0.1:9"}})
    assert (found.status, "EndpointConnectionError" in found.detail) == ("fail", True)


def test_doctor_finds_a_server_without_conditional_writes(world: S3World, tmp_path: Path) -> None:
    world.proxy.ignores_conditions = True
    try:
        found = findings(tmp_path / "a", {"root": f"s3://{BUCKET}/old", "s3": {"endpoint_url": world.proxy.url}})
    finally:
        world.proxy.ignores_conditions = False
    assert found.status == "fail"
    assert "overwrites an object that a write asked it not to (If-None-Match)" in found.detail


@pytest.mark.milvus
@pytest.mark.slow
def test_the_same_index_from_s3_and_from_folders(
    world: S3World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faults that pass happen meanwhile; a second run commits nothing; pages, backups and commands work."""
    upload(world.url, BUCKET, "docs/", CORPUS)
    monkeypatch.chdir(tmp_path)  # what must be on a local disk lies below
    source = {"name": "handbook", "kind": "s3", "bucket": BUCKET, "prefix": "docs", "endpoint_url": world.proxy.url}
    store = {"root": f"s3://{BUCKET}/store", "s3": {"endpoint_url": world.proxy.url}}
    remote = Platform(tmp_path / "remote", [source], {"store": store})
    local = Platform(tmp_path / "local", [{"name": "handbook", "kind": "files", "root": str(CORPUS)}])
    workers = remote.store.local_path("work", "resident")
    workers.parent.mkdir(parents=True)
    workers.symlink_to((local.root / "data" / "work" / "resident").resolve())  # both use one worker
    try:
        commits = world.proxy.spoil("lost_answer", lambda asked: asked.is_commit and "/embeddings/" in asked.path)
        slow = world.proxy.spoil("503", lambda asked: asked.kind == "PutObject", times=5)
        torn = world.proxy.spoil("torn_answer", lambda asked: asked.kind == "GetObject" and "work/" in asked.path)
        done = remote.rag("run")
        assert done.returncode == 0, done.stdout + done.stderr
        assert (commits.done, slow.done, torn.done) == (1, 5, 1)
        assert local.run()["upserted"] > 0
        before = remote.tables()
        mine, theirs = (sorted(row[0] for row in one["chunks"]) for one in (before, local.tables()))
        assert mine == theirs
        world.proxy.reset()
        done = remote.rag("run")
        assert "0 tables committed" in done.stdout, done.stdout + done.stderr
        assert remote.tables() == before
        assert world.proxy.counts()["PutObject"] < 20
        found = [[hit["chunk_id"] for hit in search_json(one, QUESTION, "hybrid")] for one in (remote, local)]
        assert found[0] == found[1]
        assert found[0]
        for command in (["ask", QUESTION], ["report"]):
            done = remote.rag(*command)
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        assert "reports/index.html" in world.keys(remote.store, "reports/")
        done = remote.rag("backup", "take", "--to", f"s3://{BUCKET}/backup")
        assert done.returncode == 0, done.stderr
        assert world.keys(remote.store, "work/embedding/") == []  # nothing of the run is left
        assert world.keys(remote.store, "work/spark/") == []
        assert world.uploads() == []
        world.proxy.spoil("403", lambda _asked: True, times=None)
        done = remote.rag("status")
        assert done.returncode == EXIT_PERMANENT
        assert "StoreRefusedError" in done.stderr
        assert "AccessDenied" in " ".join(done.stderr.split())
    finally:
        world.proxy.reset()
        remote.stop()
        local.stop()
