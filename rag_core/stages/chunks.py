"""Chunks: cut the documents whose content or chunker changed since their chunks were made."""

import time

import pyarrow as pa
import pyarrow.compute as pc

from rag_core.config import RagConfig
from rag_core.engine.base import ChunkJob, Engine
from rag_core.engine.chunkers import chunker_fingerprints
from rag_core.generation import Generation
from rag_core.partitions import keys_by_source
from rag_core.stages.common import Counts, Progress, StageOutput, anti_join, count_by_partition, no_progress
from rag_core.tables.change import StagedFile, TableChange
from rag_core.tables.delta import TableSlice

_DOC = ["partition_key", "doc_id", "doc_hash", "chunker_fingerprint"]


def chunks_change(
    documents: TableSlice,
    current: TableSlice,
    generation: Generation,
    engine: Engine,
    *,
    on_progress: Progress = no_progress,
) -> StageOutput:
    """Bring the chunks of some partitions up to date with their documents.

    Args:
        documents: The `documents` table, narrowed to the partitions of the run.
        current: The `chunks` table, narrowed likewise.
        generation: Chunking by source, and the lane. Where it follows the settings, another chunker than the one that a
            document was cut by cuts it again.
        engine: Where chunking runs.
        on_progress: Told of chunked documents.

    Returns:
        The change, and counts in documents by partition.
    """
    started = time.perf_counter()
    current = current.in_lane(generation.chunk_lane)
    compared = _DOC if generation.follows_settings else _DOC[:-1]
    ok = documents.read(["partition_key", "doc_id", "doc_hash"], pc.field("status") == "ok")
    wanted = _with_fingerprints(ok, generation.config)
    have = current.read(_DOC).group_by(_DOC).aggregate([])
    todo = anti_join(wanted, have, compared)
    gone = anti_join(have, wanted, ["partition_key", "doc_id"])
    changed = todo.join(have.select(["doc_id"]), keys=["doc_id"], join_type="left semi")
    seconds = {"diff": time.perf_counter() - started}
    started = time.perf_counter()
    files: list[StagedFile] = []
    if todo.num_rows:
        job = ChunkJob(current.store, generation.config, generation.chunk_lane)
        doc_ids = todo["doc_id"].combine_chunks()
        files += engine.chunk(_slice_of(documents, todo), doc_ids, job, on_progress=on_progress)
    seconds["chunk"] = time.perf_counter() - started
    change = TableChange(
        current,
        "doc_id",
        files=tuple(files),
        replaced=tuple(sorted({*changed["doc_id"].to_pylist(), *gone["doc_id"].to_pylist()})),
        metadata={"consumed": f"documents@{documents.version}"},
    )
    totals = {"chunks": sum(file.rows for file in files), "documents_chunked": todo.num_rows}
    return StageOutput(change, _counts(current, wanted, todo, changed, gone), seconds, totals)


def _slice_of(documents: TableSlice, todo: pa.Table) -> TableSlice:
    """Narrow the documents to the partitions that hold work."""
    return documents.of(*sorted(pc.unique(todo["partition_key"]).to_pylist()))


def _with_fingerprints(ok: pa.Table, config: RagConfig) -> pa.Table:
    fingerprints = chunker_fingerprints(config)
    partitions = pc.unique(ok["partition_key"]).to_pylist()
    source_of = {key: source for source, keys in keys_by_source(config, partitions).items() for key in keys}
    column = [fingerprints[source_of[key]] for key in ok["partition_key"].to_pylist()]
    return ok.append_column("chunker_fingerprint", pa.array(column, pa.string()))


def _counts(
    current: TableSlice, wanted: pa.Table, todo: pa.Table, changed: pa.Table, gone: pa.Table
) -> dict[str, Counts]:
    totals, touched = count_by_partition(wanted), count_by_partition(todo)
    rewritten, removed = count_by_partition(changed), count_by_partition(gone)
    return {
        key: Counts(
            rows_in=totals.get(key, 0),
            new=touched.get(key, 0) - rewritten.get(key, 0),
            changed=rewritten.get(key, 0),
            deleted=removed.get(key, 0),
            unchanged=totals.get(key, 0) - touched.get(key, 0),
        )
        for key in current.partition_keys or ()
    }
