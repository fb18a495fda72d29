"""Spark's view of the store, through its Python Data Source API: readers of work and of tables, a writer that stages.

The writer's tasks write Parquet files into the table's folder; its `commit` runs once on the driver and only then is
the list of files left for the caller, who makes one Delta transaction of them. A failed Spark job leaves no list.
Source: https://spark.apache.org/docs/latest/api/python/tutorial/sql/python_data_source.html
"""

import json
import pickle
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql.datasource import (
    DataSource,
    DataSourceArrowWriter,
    DataSourceReader,
    InputPartition,
    WriterCommitMessage,
)
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StructType

from rag_core.sources.base import OBJECTS
from rag_core.tables.change import StagedFile, StagingWriter, remove_staged
from rag_core.tables.delta import SCHEMAS, TableSlice, in_set
from rag_core.tables.store import Store


def encode(value: object) -> str:
    """Write a value as a data source option, which Spark keeps as text."""
    return b64encode(pickle.dumps(value)).decode()


def decode(text: str) -> Any:
    """Read a value from a data source option that `encode` wrote in the same job."""
    return pickle.loads(b64decode(text))


@dataclass
class _Span(InputPartition):
    value: Any = None


@dataclass(frozen=True)
class ObjectsInput:
    """Objects to parse, in a Parquet work file; each row group is one task."""

    store: Store
    path: str


@dataclass(frozen=True)
class DocumentsInput:
    """Documents to chunk: a slice of the table, and a Parquet work file with the ids that are wanted."""

    documents: TableSlice
    ids_path: str


@dataclass(frozen=True)
class StagedTarget:
    """Where rows are staged: a table, and its lane if it has lanes."""

    store: Store
    table: str
    lane: str | None


class ObjectsSource(DataSource):
    """Format `rag_objects`: rows in schema OBJECTS."""

    @classmethod
    def name(cls) -> str:
        """Name of the format."""
        return "rag_objects"

    def schema(self) -> StructType:
        """Spark form of OBJECTS."""
        return from_arrow_schema(OBJECTS)

    def reader(self, schema: StructType) -> DataSourceReader:
        """Return the reader."""
        return _ObjectsReader(decode(self.options["input"]))


class _ObjectsReader(DataSourceReader):
    def __init__(self, source: ObjectsInput) -> None:
        self._input = source

    def partitions(self) -> list[InputPartition]:
        filesystem, _ = self._input.store.filesystem()
        with filesystem.open_input_file(self._input.path) as file:
            return [_Span(group) for group in range(pq.ParquetFile(file).num_row_groups)]

    def read(self, partition: _Span) -> Iterator[pa.RecordBatch]:
        filesystem, _ = self._input.store.filesystem()
        with filesystem.open_input_file(self._input.path) as file:
            yield from pq.ParquetFile(file).read_row_group(partition.value).cast(OBJECTS).to_batches()


class DocumentsSource(DataSource):
    """Format `rag_documents`: rows of the `documents` table at one version, those whose ids are wanted."""

    @classmethod
    def name(cls) -> str:
        """Name of the format."""
        return "rag_documents"

    def schema(self) -> StructType:
        """Spark form of DOCUMENTS."""
        return from_arrow_schema(SCHEMAS["documents"])

    def reader(self, schema: StructType) -> DataSourceReader:
        """Return the reader."""
        return _DocumentsReader(decode(self.options["input"]))


class _DocumentsReader(DataSourceReader):
    def __init__(self, source: DocumentsInput) -> None:
        self._input = source

    def partitions(self) -> list[InputPartition]:
        # One task for each Dagster partition: a task reads only its own files, whatever wrote them.
        return [_Span(key) for key in self._input.documents.partition_keys or ()]

    def read(self, partition: _Span) -> Iterator[pa.RecordBatch]:
        filesystem, _ = self._input.documents.store.filesystem()
        wanted = pq.read_table(self._input.ids_path, filesystem=filesystem)["doc_id"].combine_chunks()
        documents = self._input.documents.of(partition.value)
        yield from documents.batches(where=in_set("doc_id", wanted), batch_rows=128)


class StagedTable(DataSource):
    """Format `rag_staged`: writes rows of a table as staged files and leaves their list at `files`."""

    @classmethod
    def name(cls) -> str:
        """Name of the format."""
        return "rag_staged"

    def writer(self, schema: StructType, overwrite: bool) -> DataSourceArrowWriter:
        """Return the writer; rows are always added, never overwritten."""
        return _StagedWriter(decode(self.options["target"]), self.options["files"])


@dataclass
class _TaskFiles(WriterCommitMessage):
    files: list[dict[str, Any]]


class _StagedWriter(DataSourceArrowWriter):
    def __init__(self, target: StagedTarget, files_path: str) -> None:
        self._target = target
        self._files_path = files_path

    def write(self, iterator: Iterator[pa.RecordBatch]) -> "_TaskFiles":
        writer = StagingWriter(self._target.store, self._target.table, self._target.lane)
        with writer:
            for batch in iterator:
                writer.write(batch)
        return _TaskFiles([asdict(file) for file in writer.close()])

    def commit(self, messages: list["_TaskFiles | None"]) -> None:
        listed = [file for message in messages if message is not None for file in message.files]
        filesystem, _ = self._target.store.filesystem()
        with filesystem.open_output_stream(self._files_path) as sink:
            sink.write(json.dumps(listed).encode())

    def abort(self, messages: list["_TaskFiles | None"]) -> None:
        files = [StagedFile(**file) for message in messages if message is not None for file in message.files]
        remove_staged(self._target.store, self._target.table, files)
