"""The engine for small changes: the same functions in this process, no JVM."""

from collections.abc import Iterator, Sequence

import pyarrow as pa

from rag_core.engine.base import ChunkJob, ParseJob, chunk_documents, parse_items
from rag_core.sources.base import SourceObject
from rag_core.stages.common import Progress, no_progress
from rag_core.tables.change import StagedFile, stage
from rag_core.tables.delta import TableSlice, in_set


class InProcessEngine:
    """Parses in one killable child process and chunks here; memory is bounded by the size of a batch."""

    def parse(
        self, items: Sequence[SourceObject], job: ParseJob, *, on_progress: Progress = no_progress
    ) -> tuple[StagedFile, ...]:
        """See `Engine.parse`."""
        batches = parse_items(_counted(items, "parsed", on_progress), job)
        return stage(job.store, "documents", batches)

    def chunk(
        self, documents: TableSlice, doc_ids: pa.Array, job: ChunkJob, *, on_progress: Progress = no_progress
    ) -> tuple[StagedFile, ...]:
        """See `Engine.chunk`."""
        batches = documents.batches(where=in_set("doc_id", doc_ids), batch_rows=256)
        rows = chunk_documents(_progressing(batches, len(doc_ids), on_progress), job)
        return stage(job.store, "chunks", rows, job.lane)


def _counted(items: Sequence[SourceObject], what: str, on_progress: Progress) -> Iterator[SourceObject]:
    for done, item in enumerate(items):
        yield item
        on_progress(what, done + 1, len(items))


def _progressing(batches: Iterator[pa.RecordBatch], total: int, on_progress: Progress) -> Iterator[pa.RecordBatch]:
    done = 0
    for batch in batches:
        yield batch
        done += batch.num_rows
        on_progress("chunked", done, total)
