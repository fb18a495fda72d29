"""The engine for large changes: the same functions through `mapInArrow` on Spark."""

import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

from rag_core.config import SparkConfig
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
from rag_core.engine.spark_errors import errors_of, is_lost
from rag_core.engine.spark_progress import task_progress
from rag_core.engine.spark_session import start
from rag_core.engine.spark_versions import check_versions
from rag_core.errors import ConfigError, TransientError
from rag_core.sources.base import SourceObject
from rag_core.stages.common import Progress, no_progress
from rag_core.tables.change import StagedFile
from rag_core.tables.delta import TableSlice, row_schema
from rag_core.tables.store import Store

_OBJECTS_PER_TASK = 128


class SparkEngine:
    """Runs jobs on the Spark of the configuration; the session starts at the first job and is kept.

    To be used by one thread: a local driver knows the data sources of the thread that started it only.
    """

    def __init__(self, config: SparkConfig) -> None:
        self._config = config
        self._session: SparkSession | None = None

    def session(self) -> SparkSession:
        """Return the session, starting it if need be; one that was lost is made anew by the next call.

        Raises:
            PermanentError: Java is missing or too old; the sentence says how to get it.
            ConfigError: Executors lack this project, or have other versions of it.
            TransientError: The cluster cannot be reached.
        """
        if self._session is None:
            with self._errors():
                self._session = start(self._config)
                for source in (ObjectsSource, DocumentsSource, StagedTable):
                    self._session.dataSource.register(source)
                if self._config.remote is not None or not self._config.master.startswith("local"):
                    check_versions(self._session, self._config.cluster)
        return self._session

    def close(self) -> None:
        """Stop the session if it was started."""
        if self._session is not None:
            with suppress(Exception):  # what is gone already cannot be stopped
                self._session.stop()
            self._session = None

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Sort what Spark raises, and give a session up that is lost, or that this project cannot use."""
        try:
            with errors_of(self._config.cluster):
                yield
        except ConfigError:
            self.close()
            raise
        except TransientError as error:
            if is_lost(error.__cause__ or error):
                self.close()
            raise

    def parse(
        self, items: Sequence[SourceObject], job: ParseJob, *, on_progress: Progress = no_progress
    ) -> tuple[StagedFile, ...]:
        """See `Engine.parse`."""
        with _work_folder(job.store) as folder, self._errors():
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
        with _work_folder(job.store) as folder, self._errors():
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
        with task_progress(self.session(), table, on_progress):
            writer.save()
        filesystem, _ = store.filesystem()
        with filesystem.open_input_stream(files_path) as source:
            return tuple(StagedFile(**file) for file in json.loads(source.read()))


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
