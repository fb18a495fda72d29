"""Large changes on a Spark cluster: a master with two workers, a Connect server; each killed in the middle of a job.

The documents come from an S3 server behind a proxy, which can hold an answer back: so a task is known to be under way,
and on which executor, without waiting for any time.
"""

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rag_core.config import RagConfig, SparkConfig
from rag_core.engine import spark, spark_versions
from rag_core.engine.base import ChunkJob, ParseJob
from rag_core.engine.in_process import InProcessEngine
from rag_core.engine.spark import SparkEngine
from rag_core.errors import ConfigError, TransientError
from rag_core.sources.factory import open_source
from rag_core.tables.change import StagedFile, TableChange, commit
from rag_core.tables.delta import TableSlice
from rag_core.tables.files import PART
from rag_core.tables.maintenance import maintain
from rag_core.tables.store import Store
from tests.integration.s3_store_helpers import BUCKET, S3World
from tests.integration.spark_helpers import python_without_project
from tests.production.services import free_port, spark_connect, spark_standalone
from tests.s3_proxy import Asked

pytestmark = [pytest.mark.spark, pytest.mark.slow]

DOCUMENTS = 600
# The smallest come last: when this one is asked for, a task of half of them has handed over a batch of 256 rows.
SLOW = "docs/note-007.md"
LANE = "lane"


@pytest.fixture(scope="module", autouse=True)
def documents(s3_started: S3World) -> None:
    for number in range(DOCUMENTS):
        text = f"# Note {number}\n\n" + "\n\n".join(f"Sentence {line} of note {number}." for line in range(12))
        s3_started.client.put_object(Bucket=BUCKET, Key=f"docs/note-{number:03d}.md", Body=text.encode())


@dataclass
class Work:
    """A configuration, its store, and the jobs on it."""

    folder: Path
    s3: S3World
    spark: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        source = {"name": "notes", "kind": "s3", "bucket": BUCKET, "prefix": "docs/", "endpoint_url": self.s3.proxy.url}
        store = {"root": str(self.folder / "store")}
        content = {"store": store, "sources": [source], "buckets": 4, "spark": self.spark}
        self.config = RagConfig.model_validate(content)
        self.store = Store.of(self.config.store)

    def parse(self, engine: Any, **options: Any) -> tuple[StagedFile, ...]:
        source = self.config.sources[0]
        job = ParseJob(self.store, self.config, source, datetime(2026, 1, 1, tzinfo=UTC))
        found: tuple[StagedFile, ...] = engine.parse(list(open_source(source).list()), job, **options)
        return found

    def chunk(self, engine: Any) -> tuple[StagedFile, ...]:
        current = TableSlice.newest(self.store, "documents")
        ids = current.read(["doc_id"])["doc_id"].combine_chunks()
        keys = sorted(set(current.read(["partition_key"])["partition_key"].to_pylist()))
        job = ChunkJob(self.store, self.config, LANE)
        found: tuple[StagedFile, ...] = engine.chunk(TableSlice.newest(self.store, "documents", keys), ids, job)
        return found

    def commit(self, files: tuple[StagedFile, ...]) -> None:
        base = TableSlice.newest(self.store, "documents", sorted({file.partition_key for file in files}))
        commit(TableChange(base=base, replace_column="object_id", files=files), run_id="test")

    def rows(self, table: str, files: tuple[StagedFile, ...]) -> list[dict[str, Any]]:
        tables = [pq.read_table(f"{self.store.root}/tables/{table}/{file.path}", partitioning=None) for file in files]
        rows = pa.concat_tables(tables).to_pylist()
        return sorted(rows, key=lambda row: row["chunk_id" if table == "chunks" else "doc_id"])

    def unfinished(self) -> set[Path]:
        """Files of documents that are being written, or were when their writer ended."""
        return set(Path(self.store.root, "tables", "documents").rglob(f"*{PART}"))


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, s3_started: S3World) -> dict[str, list[dict[str, Any]]]:
    """The rows that this process makes."""
    work = Work(tmp_path_factory.mktemp("expected"), s3_started)
    documents = work.parse(InProcessEngine())
    work.commit(documents)
    return {
        "documents": work.rows("documents", documents),
        "chunks": work.rows("chunks", work.chunk(InProcessEngine())),
    }


@contextmanager
def held(s3: S3World) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Hold back the first answer for one document: events that it was asked for, and that it may be answered."""
    asked, may_go = threading.Event(), threading.Event()

    def hold(one: Asked) -> None:
        if one.kind == "GetObject" and one.path.endswith(SLOW) and not asked.is_set():
            asked.set()
            may_go.wait(120)

    s3.proxy.before = hold
    try:
        yield asked, may_go
    finally:
        may_go.set()
        s3.proxy.reset()


def executor_that_waits(s3: S3World) -> psutil.Process:
    """Find the executor one of whose Python processes is connected to the proxy."""
    port = int(s3.proxy.url.rpartition(":")[2])
    for process in psutil.process_iter(["cmdline"]):
        with suppress(psutil.Error):
            if "pyspark" in " ".join(process.info["cmdline"] or ()) and any(
                one.raddr and one.raddr.port == port for one in process.net_connections("tcp")
            ):
                for parent in process.parents():
                    if "CoarseGrainedExecutorBackend" in " ".join(parent.cmdline()):
                        return parent
    raise AssertionError("no executor waits for the proxy")


def kill(process: psutil.Process) -> None:
    """Kill a process with all that it started, at once: none may tidy up because it sees another one end."""
    family = [*process.children(recursive=True), process]
    for act in (psutil.Process.suspend, psutil.Process.kill):
        for one in family:
            with suppress(psutil.NoSuchProcess):
                act(one)


def under_way(
    pool: ThreadPoolExecutor, work: Work, engine: SparkEngine, asked: threading.Event
) -> "Future[tuple[StagedFile, ...]]":
    """Start a job, and wait until one of its tasks waits for its document."""
    job = pool.submit(work.parse, engine)
    deadline = time.monotonic() + 120
    while not asked.wait(0.5):
        assert not job.done(), job.exception()
        assert time.monotonic() < deadline, "no task has asked for the document"
    return job


def wait_for_rows(work: Work) -> None:
    """Wait until the task that waits has begun to write, and the other one has written all of its files."""
    deadline = time.monotonic() + 120
    whole = Path(work.store.root, "tables", "documents")
    while len(list(whole.rglob("*.parquet"))) < work.config.buckets or not work.unfinished():
        assert time.monotonic() < deadline, "no task has begun a file"
        time.sleep(0.1)


def test_a_worker_is_killed_in_the_middle_of_a_job(
    tmp_path: Path, s3: S3World, expected: dict[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task is done again on the other worker; each row is in the listed files once; what the dead one began
    stays behind, and goes with the maintenance."""
    monkeypatch.setattr(spark, "_OBJECTS_PER_TASK", DOCUMENTS // 2)
    conf = {
        "spark.executor.memory": "512m",
        "spark.driver.host": "127.0.0.1",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "16",  # rows reach the writer as they come
    }
    with spark_standalone(tmp_path) as master, ThreadPoolExecutor(1) as pool:
        work = Work(tmp_path, s3, {"master": master, "conf": conf})
        engine = SparkEngine(work.config.spark)
        try:
            with held(s3) as (asked, may_go):
                job = under_way(pool, work, engine, asked)
                wait_for_rows(work)
                executor = executor_that_waits(s3)
                worker = executor.parents()[0]
                assert "org.apache.spark.deploy.worker.Worker" in " ".join(worker.cmdline())
                kill(worker)  # with its executor and the Python that waits
                may_go.set()
                files = job.result(300)
            assert work.rows("documents", files) == expected["documents"]
            work.commit(files)
            chunks = pool.submit(work.chunk, engine).result(300)  # the engine is used by one thread
            assert work.rows("chunks", chunks) == expected["chunks"]
            assert TableSlice.newest(work.store, "documents").count() == DOCUMENTS
            assert list(Path(work.store.root, "work", "spark").iterdir()) == []
        finally:
            engine.close()
    long_ago = (datetime.now(UTC) - timedelta(days=8)).timestamp()
    for path in work.unfinished():  # of the task that was killed, where its rows had come to the writer
        os.utime(path, (long_ago, long_ago))
    list(maintain(work.store, ("documents",)))
    assert not work.unfinished()
    assert TableSlice.newest(work.store, "documents").count() == DOCUMENTS


def test_executors_that_lack_this_project_are_told(tmp_path: Path) -> None:
    python = python_without_project(tmp_path / "bare")
    with spark_connect(tmp_path, env={"PYSPARK_PYTHON": str(python)}) as address:
        engine = SparkEngine(SparkConfig(remote=address))
        with pytest.raises(ConfigError, match=r"its Python has no module 'rag_core'; its image, or its nodes, must"):
            engine.session()


def test_a_connect_server_is_killed_and_comes_back(
    tmp_path: Path, s3: S3World, expected: dict[str, list[dict[str, Any]]]
) -> None:
    port = free_port()
    work = Work(tmp_path, s3, {"remote": f"sc://127.0.0.1:{port}", "wait_s": 10})
    engine = SparkEngine(work.config.spark)
    with pytest.raises(
        TransientError, match=rf"spark\.remote sc://127\.0\.0\.1:{port}: nothing answers there after 10 s"
    ):
        work.parse(engine)
    with ThreadPoolExecutor(1) as pool:
        with spark_connect(tmp_path / "first", port=port), held(s3) as (asked, may_go):
            job = under_way(pool, work, engine, asked)
            for process in psutil.process_iter(["cmdline"]):
                words = process.info["cmdline"] or ()
                if f"spark.connect.grpc.binding.port={port}" in words:
                    kill(process)
            may_go.set()
            with pytest.raises(TransientError, match=r"the session was lost .*nothing was committed, run again"):
                job.result(120)
        assert not Path(work.store.root, "tables", "documents", "_delta_log").exists()
        told: list[tuple[str, int, int]] = []
        with spark_connect(tmp_path / "second", port=port):
            files = work.parse(engine, on_progress=lambda *told_: told.append(told_))  # a session of its own accord
            assert work.rows("documents", files) == expected["documents"]
            assert any(what == "Spark tasks of documents" and total for what, _, total in told)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(spark_versions, "versions", lambda: {"python": "3.11", "kreuzberg": "0.1"})
                other = SparkEngine(work.config.spark)
                with pytest.raises(
                    ConfigError, match=r"its executors have kreuzberg \S+ and not 0\.1;.*docs/spark\.md"
                ):
                    other.session()
            engine.close()
