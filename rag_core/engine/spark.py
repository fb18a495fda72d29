"""The engine for large changes: the same functions through `mapInArrow` on Spark."""

import json
import logging
import os
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

from rag_core.config import SparkConfig
from rag_core.doctor import require_java
from rag_core.engine.base import ChunkJob, ParseJob, chunk_documents, objects_from, objects_table, parse_items
from rag_core.engine.datasource import (
    DocumentsInput,
    DocumentsSource,
    ObjectsInput,
    ObjectsSource,
    StagedTable,
    StagedTarget,
    encode,
)
from rag_core.sources.base import SourceObject
from rag_core.stages.common import Progress, no_progress
from rag_core.tables.change import StagedFile
from rag_core.tables.delta import TableSlice, row_schema
from rag_core.tables.store import Store

_log = logging.getLogger(__name__)

_OBJECTS_PER_TASK = 128
_POLL_S = 2.0


class SparkEngine:
    """Runs jobs on the Spark of the configuration; the session starts at the first job and is kept."""

    def __init__(self, config: SparkConfig) -> None:
        self._config = config
        self._session: SparkSession | None = None

    def session(self) -> SparkSession:
        """Return the session, starting it if need be.

        Raises:
            PermanentError: Java is missing or too old; the sentence says how to get it.
        """
        if self._session is None:
            self._session = _start(self._config)
            for source in (ObjectsSource, DocumentsSource, StagedTable):
                self._session.dataSource.register(source)
        return self._session

    def close(self) -> None:
        """Stop the session if it was started."""
        if self._session is not None:
            self._session.stop()
            self._session = None

    def parse(
        self, items: Sequence[SourceObject], job: ParseJob, *, on_progress: Progress = no_progress
    ) -> tuple[StagedFile, ...]:
        """See `Engine.parse`."""
        with _work_folder(job.store) as folder:
            # Large objects first and spread: a task that starts last should be a short one.
            ordered = sorted(items, key=lambda item: -item.size_bytes)
            tasks = max(2, -(-len(ordered) // _OBJECTS_PER_TASK))
            spread = [item for task in range(tasks) for item in ordered[task::tasks]]
            path = _write_work(job.store, folder, objects_table(spread), -(-len(spread) // tasks))
            rows = self.session().read.format("rag_objects").option("input", encode(ObjectsInput(job.store, path)))

            def parse(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
                yield from parse_items((item for batch in batches for item in objects_from(batch)), job)

            return self._stage(rows.load().mapInArrow(parse, _spark_schema("documents")), job.store, "documents", None,
                               folder, on_progress)  # fmt: skip

    def chunk(
        self, documents: TableSlice, doc_ids: pa.Array, job: ChunkJob, *, on_progress: Progress = no_progress
    ) -> tuple[StagedFile, ...]:
        """See `Engine.chunk`."""
        with _work_folder(job.store) as folder:
            path = _write_work(job.store, folder, pa.table({"doc_id": doc_ids}), 1_000_000)
            reader = self.session().read.format("rag_documents")
            rows = reader.option("input", encode(DocumentsInput(documents, path))).load()

            def chunk(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
                yield from chunk_documents(batches, job)

            return self._stage(rows.mapInArrow(chunk, _spark_schema("chunks")), job.store, "chunks", job.lane,
                               folder, on_progress)  # fmt: skip

    def _stage(
        self, rows: DataFrame, store: Store, table: str, lane: str | None, folder: str, on_progress: Progress
    ) -> tuple[StagedFile, ...]:
        files_path = f"{folder}/files.json"
        writer = rows.write.format("rag_staged").mode("append")
        target = StagedTarget(store, table, lane)
        writer = writer.option("target", encode(target)).option("files", files_path)
        with _task_progress(self.session(), table, on_progress):
            writer.save()
        filesystem, _ = store.filesystem()
        with filesystem.open_input_stream(files_path) as source:
            return tuple(StagedFile(**file) for file in json.loads(source.read()))


def _start(config: SparkConfig) -> SparkSession:
    builder = SparkSession.builder.appName("rag-assets")
    if config.remote is not None:
        return builder.remote(config.remote).getOrCreate()
    require_java()
    # Workers must be this very interpreter; "python3" of the PATH has none of the packages.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    settings = {
        "spark.driver.memory": config.driver_memory,
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "256",
        "spark.python.worker.reuse": "true",
        **config.conf,
    }
    if not config.master.startswith("local"):
        for name in ("spark.driver.bindAddress", "spark.driver.host"):
            if name not in config.conf:
                settings.pop(name)
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.master(config.master).getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session


def _spark_schema(table: str) -> Any:
    return from_arrow_schema(row_schema(table))


@contextmanager
def _work_folder(store: Store) -> Iterator[str]:
    """Make a folder for the files of one job, and remove it afterwards."""
    filesystem, root = store.filesystem()
    folder = f"{root}/work/spark/{uuid.uuid4().hex}"
    filesystem.create_dir(folder, recursive=True)
    try:
        yield folder
    finally:
        filesystem.delete_dir(folder)


def _write_work(store: Store, folder: str, table: pa.Table, rows_per_group: int) -> str:
    filesystem, _ = store.filesystem()
    path = f"{folder}/input.parquet"
    pq.write_table(table, path, filesystem=filesystem, row_group_size=max(1, rows_per_group))
    return path


@contextmanager
def _task_progress(session: SparkSession, what: str, on_progress: Progress) -> Iterator[None]:
    """Report finished tasks while a job runs; Spark Connect has no status tracker, so there it stays silent."""
    context = getattr(session, "_sc", None)
    if context is None:
        yield
        return
    tracker, stop = context.statusTracker(), threading.Event()

    def poll() -> None:
        while not stop.wait(_POLL_S):
            infos = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
            total = sum(info.numTasks for info in infos if info is not None)
            if total:
                on_progress(f"Spark tasks of {what}", sum(i.numCompletedTasks for i in infos if i is not None), total)

    thread = threading.Thread(target=poll, name="spark-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
