"""Large changes on a Spark cluster: a master with two workers, a Connect server; each killed in the middle of a job.

The documents come from an S3 server behind a proxy, which can hold an answer back: so a task is known to be under way,
and on which executor, without waiting for any time.
"""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rag_core.config import RagConfig, SparkConfig
from rag_core.engine import spark_versions
from rag_core.engine.base import ChunkJob, ParseJob
from rag_core.engine.in_process import InProcessEngine
from rag_core.engine.spark import SparkEngine
from rag_core.errors import ConfigError, TransientError
from rag_core.sources.factory import open_source
from rag_core.tables.change import StagedFile, TableChange, commit
from rag_core.tables.delta import TableSlice
from rag_core.tables.store import Store
from tests.integration.s3_store_helpers import BUCKET, S3World
from tests.integration.spark_helpers import python_without_project
from tests.ports import free_port
from tests.production.services import spark_connect, spark_standalone
from tests.s3_proxy import Asked

pytestmark = [pytest.mark.spark, pytest.mark.slow]

DOCUMENTS = 300  # three tasks
SLOW = "docs/note-077.md"
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


@dataclass
class Held:
    """An answer that is held back: that it was asked for, from which port, and that it may be given."""

    asked: threading.Event = field(default_factory=threading.Event)
    may_go: threading.Event = field(default_factory=threading.Event)
    client_port: int = 0


@contextmanager
def held(s3: S3World) -> Iterator[Held]:
    """Hold back every answer for one document, those to a client that asks again as well."""
    one = Held()

    def hold(request: Asked) -> None:
        if request.kind == "GetObject" and request.path.endswith(SLOW) and not one.may_go.is_set():
            one.client_port = request.client_port
            one.asked.set()
            one.may_go.wait(120)

    s3.proxy.before = hold
    try:
        yield one
    finally:
        one.may_go.set()
        s3.proxy.reset()


def executor_that_waits(answer: Held) -> psutil.Process:
    """Find the executor one of whose Python processes waits for an answer; others are connected, and have theirs."""
    for process in psutil.process_iter(["cmdline"]):
        with suppress(psutil.Error):
            if "pyspark" in " ".join(process.info["cmdline"] or ()) and any(
                one.laddr.port == answer.client_port for one in process.net_connections("tcp")
            ):
                for parent in process.parents():
                    if "CoarseGrainedExecutorBackend" in " ".join(parent.cmdline()):
                        return parent
    raise AssertionError("no executor waits for the answer")


def kill(process: psutil.Process) -> None:
    """Kill a process with all that it started, at once: none may tidy up because it sees another one end."""
    family = [*process.children(recursive=True), process]
    for act in (psutil.Process.suspend, psutil.Process.kill):
        for one in family:
            with suppress(psutil.NoSuchProcess):
                act(one)


def under_way(
    pool: ThreadPoolExecutor, work: Work, engine: SparkEngine, answer: Held
) -> "Future[tuple[StagedFile, ...]]":
    """Start a job, and wait until one of its tasks waits for its document."""
    job = pool.submit(work.parse, engine)
    deadline = time.monotonic() + 120
    while not answer.asked.wait(0.5):
        assert not job.done(), job.exception()
        assert time.monotonic() < deadline, "no task has asked for the document"
    return job


def test_a_worker_is_killed_in_the_middle_of_a_job(
    tmp_path: Path, s3: S3World, expected: dict[str, list[dict[str, Any]]]
) -> None:
    """The task is done again on the other worker; each row is in the listed files once; those are committed."""
    conf = {"spark.executor.memory": "512m", "spark.driver.host": "127.0.0.1"}
    with spark_standalone(tmp_path) as master, ThreadPoolExecutor(1) as pool:
        work = Work(tmp_path, s3, {"master": master, "conf": conf})
        engine = SparkEngine(work.config.spark)
        try:
            with held(s3) as answer:
                job = under_way(pool, work, engine, answer)
                executor = executor_that_waits(answer)
                worker = executor.parents()[0]
                assert "org.apache.spark.deploy.worker.Worker" in " ".join(worker.cmdline())
                kill(worker)  # with its executor and the Python that waits
                answer.may_go.set()
                files = job.result(300)
            assert work.rows("documents", files) == expected["documents"]
            work.commit(files)
            chunks = pool.submit(work.chunk, engine).result(300)  # the engine is used by one thread
            assert work.rows("chunks", chunks) == expected["chunks"]
            assert TableSlice.newest(work.store, "documents").count() == DOCUMENTS
            assert list(Path(work.store.root, "work", "spark").iterdir()) == []
        finally:
            engine.close()


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
        with spark_connect(tmp_path / "first", port=port), held(s3) as answer:
            job = under_way(pool, work, engine, answer)
            for process in psutil.process_iter(["cmdline"]):
                words = process.info["cmdline"] or ()
                if f"spark.connect.grpc.binding.port={port}" in words:
                    kill(process)
            answer.may_go.set()
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
