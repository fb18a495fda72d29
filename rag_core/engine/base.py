"""The jobs an engine runs, the pure functions that do them, and the choice between engines."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Protocol

import pyarrow as pa

from rag_core.chunking.rows import chunk_batches
from rag_core.config import RagConfig, SourceConfig, SparkConfig
from rag_core.engine.chunkers import chunker_of
from rag_core.parsing.rows import SourceDefaults, document_batches
from rag_core.parsing.sandbox import ParserProcess
from rag_core.parsing.settings import ParseSettings
from rag_core.sources.base import OBJECTS, SourceObject
from rag_core.sources.factory import open_source
from rag_core.stages.common import Progress, no_progress
from rag_core.tables.change import StagedFile
from rag_core.tables.delta import TableSlice
from rag_core.tables.store import Store


@dataclass(frozen=True)
class ParseJob:
    """Parse objects of one source into rows of `documents`."""

    store: Store
    config: RagConfig
    source: SourceConfig
    ingested_at: datetime


@dataclass(frozen=True)
class ChunkJob:
    """Cut documents into rows of `chunks`."""

    store: Store
    config: RagConfig
    lane: str


class Engine(Protocol):
    """Runs jobs and leaves their rows as staged files, which the caller commits."""

    def parse(
        self, items: Sequence[SourceObject], job: ParseJob, *, on_progress: Progress = no_progress
    ) -> tuple[StagedFile, ...]:
        """Parse all items; a bad document becomes a row with its reason and never fails the job."""
        ...

    def chunk(
        self, documents: TableSlice, doc_ids: pa.Array, job: ChunkJob, *, on_progress: Progress = no_progress
    ) -> tuple[StagedFile, ...]:
        """Chunk the named documents of the slice."""
        ...


class AutoEngine:
    """Takes the in-process engine for small changes and Spark for large ones, so that one document pays for no JVM."""

    def __init__(self, in_process: Engine, spark: Engine, config: SparkConfig) -> None:
        self._in_process = in_process
        self._spark = spark
        self._config = config

    def _choose(self, objects: int, size_bytes: int) -> Engine:
        small = objects <= self._config.in_process_max_objects and size_bytes <= self._config.in_process_max_bytes
        return self._in_process if small else self._spark

    def parse(
        self, items: Sequence[SourceObject], job: ParseJob, *, on_progress: Progress = no_progress
    ) -> tuple[StagedFile, ...]:
        """See `Engine.parse`."""
        engine = self._choose(len(items), sum(item.size_bytes for item in items))
        return engine.parse(items, job, on_progress=on_progress)

    def chunk(
        self, documents: TableSlice, doc_ids: pa.Array, job: ChunkJob, *, on_progress: Progress = no_progress
    ) -> tuple[StagedFile, ...]:
        """See `Engine.chunk`; the size of the documents is not known beforehand, their number decides."""
        return self._choose(len(doc_ids), 0).chunk(documents, doc_ids, job, on_progress=on_progress)


def objects_table(items: Iterable[SourceObject], partition_key: str = "") -> pa.Table:
    """Write objects as a table in schema OBJECTS."""
    columns: dict[str, list[object]] = {name: [] for name in OBJECTS.names}
    for item in items:
        columns["partition_key"].append(partition_key)
        for name in OBJECTS.names[1:]:
            columns[name].append(getattr(item, name))
    return pa.table(columns, schema=OBJECTS)


def objects_from(batch: pa.RecordBatch) -> list[SourceObject]:
    """Read objects from a batch in schema OBJECTS."""
    names = OBJECTS.names[1:]
    columns = [batch.column(name).to_pylist() for name in names]
    return [SourceObject(**dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]


@lru_cache(maxsize=4)
def _parser(settings: ParseSettings, _pid: int) -> ParserProcess:
    """Keep one parser child for each Python process: a Spark worker serves many tasks, and a fork must not share it."""
    return ParserProcess(settings)


def parse_items(items: Iterable[SourceObject], job: ParseJob) -> Iterator[pa.RecordBatch]:
    """Parse items in this process's parser child; batches are in schema DOCUMENTS and bounded in size."""
    settings = ParseSettings.of(job.config.parsing, job.source)
    yield from document_batches(
        items,
        read=open_source(job.source).read,
        parser=_parser(settings, os.getpid()),
        settings=settings,
        defaults=SourceDefaults.of(job.source, job.config.buckets_of(job.source)),
        ingested_at=job.ingested_at,
    )


def chunk_documents(batches: Iterable[pa.RecordBatch], job: ChunkJob) -> Iterator[pa.RecordBatch]:
    """Chunk batches of documents; batches are in schema CHUNKS and bounded in size."""
    yield from chunk_batches(batches, lambda source: chunker_of(job.config, source))
