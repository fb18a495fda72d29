"""Index: make Milvus hold exactly the chunks that have a vector, partition by partition, and keep the ledger of it.

The ledger says what Milvus was verified to hold. It is written last, so a crash leaves it behind Milvus, never ahead:
the next run repeats the difference, and the final count finds what the ledger does not know.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from rag_core.caching.invalidation import caches_of
from rag_core.generation import Generation
from rag_core.index.client import IndexClient
from rag_core.index.joined import joined_rows
from rag_core.index.journal import SyncJournal
from rag_core.index.sync import SyncResult, sync_partition
from rag_core.stages.common import Counts, Progress, StageOutput, anti_join, no_progress
from rag_core.stages.deletions import Removals, chunks_by_document
from rag_core.tables.change import StagedFile, TableChange, stage
from rag_core.tables.delta import TableSlice, row_schema

_WANTED = ["chunk_id", "doc_id", "row_hash", "text_hash"]
_LEDGER = ["chunk_id", "doc_id", "row_hash", "model_fingerprint"]
_ROW = row_schema("index_partitions")


@dataclass(frozen=True)
class _Difference:
    """Of one partition: rows wanted in Milvus, those to write, ids to delete, documents whose ledger rows change.

    `unwanted` are the documents of which no row is wanted any more, with the ids of all their rows.
    """

    wanted: pa.Table
    upserts: pa.Table
    deletes: list[str]
    documents: list[str]
    known: set[str]
    unwanted: dict[str, list[str]]


@dataclass(frozen=True)
class IndexTables:
    """The slices the stage reads and the ledger it changes, all narrowed to the partitions of the run."""

    chunks: TableSlice
    embeddings: TableSlice
    ledger: TableSlice

    def of(self, generation: Generation) -> "IndexTables":
        """Narrow the tables to a generation's lanes."""
        return IndexTables(
            self.chunks.in_lane(generation.chunk_lane),
            self.embeddings.in_lane(generation.embedding_lane),
            self.ledger.in_lane(generation.collection),
        )


def index_change(
    tables: IndexTables,
    client: IndexClient,
    generation: Generation,
    *,
    run_id: str,
    on_progress: Progress = no_progress,
) -> StageOutput:
    """Bring the partitions of a generation's collection up to date, and build the ledger's change.

    Documents that were removed have their receipts when this returns: before the ledger forgets them.

    Args:
        tables: Chunks, embeddings and ledger.
        client: Connected to the Milvus that holds the collection.
        generation: Its collection must exist; vectors of another model are not written.
        run_id: Kept in the receipts.
        on_progress: Told of written rows.

    Returns:
        The ledger's change, and counts by partition in chunks.

    Raises:
        TransientError: Milvus did not come to hold what it should, something of a removed document is still found, or
            the cache of the service was not told of it; a further run repeats the difference.
    """
    tables = tables.of(generation)
    collection, model_fingerprint = generation.collection, generation.spec.fingerprint
    store = tables.ledger.store
    journal = SyncJournal(store, collection)
    removals = Removals(store, client, collection, run_id=run_id, caches=caches_of(generation.config, store))
    files: list[StagedFile] = []
    replaced: set[str] = set()
    counts: dict[str, Counts] = {}
    seconds: dict[str, float] = {"diff": 0.0, "receipts": 0.0}
    upserted = deleted = repaired = 0
    keys = tables.ledger.partition_keys or ()
    for number, key in enumerate(keys):
        started = time.perf_counter()
        part = IndexTables(tables.chunks.of(key), tables.embeddings.of(key), tables.ledger.of(key))
        difference = _diff(part, model_fingerprint)
        seconds["diff"] += time.perf_counter() - started
        with _timed(seconds, "receipts"):
            removals.note(key, difference.unwanted)
        result = _sync(part, difference, client, collection, key, journal, _rows_written(on_progress, upserted))
        with _timed(seconds, "receipts"):
            removals.verify(key)
        started = time.perf_counter()
        if difference.documents:
            rows = _ledger_rows(difference, key, model_fingerprint)
            files += stage(store, "index_partitions", rows, collection)
            replaced.update(difference.known.intersection(difference.documents))
        counts[key] = _counts(difference, result)
        for name, value in {**result.seconds, "ledger": time.perf_counter() - started}.items():
            seconds[name] = seconds.get(name, 0.0) + value
        upserted, deleted = upserted + result.upserted, deleted + result.deleted
        repaired += result.repaired
        on_progress("partitions indexed", number + 1, len(keys))
    with _timed(seconds, "receipts"):
        removed = removals.write()
    change = TableChange(
        tables.ledger,
        "doc_id",
        files=tuple(files),
        replaced=tuple(sorted(replaced)),
        metadata={
            "consumed": f"chunks@{tables.chunks.version} embeddings@{tables.embeddings.version}",
            "collection": collection,
        },
    )
    totals = {"upserted": upserted, "deleted": deleted, "repaired": repaired, "receipts": removed}
    return StageOutput(change, counts, seconds, totals, after_commit=lambda: _end(journal, removals, counts))


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    """Add the block's wall time to the step's."""
    started = time.perf_counter()
    yield
    seconds[step] += time.perf_counter() - started


def _rows_written(on_progress: Progress, before: int) -> Callable[[int], None]:
    """Report rows of one partition as rows of the whole run, of which `before` were written already."""
    return lambda done: on_progress("rows written", before + done, 0)


def _end(journal: SyncJournal, removals: Removals, partition_keys: Iterable[str]) -> None:
    """Take the journal's marks and the notes away, now that the ledger says what Milvus holds."""
    for key in partition_keys:
        journal.end(key)
    removals.end()


def _diff(part: IndexTables, model_fingerprint: str) -> _Difference:
    vectors = part.embeddings.read(["chunk_id", "text_hash"], pc.field("model_fingerprint") == model_fingerprint)
    chunks = part.chunks.read(_WANTED)
    # A chunk whose vector is not there yet (the stage before was not run) waits; it is not an error of this stage.
    wanted = chunks.join(vectors, keys=["chunk_id", "text_hash"], join_type="left semi")
    ledger = part.ledger.read(_LEDGER)
    here = ledger.filter(pc.field("model_fingerprint") == model_fingerprint)
    upserts = anti_join(wanted, here, ["chunk_id", "row_hash"])
    gone = anti_join(ledger, wanted, ["chunk_id"])
    documents = {*upserts["doc_id"].to_pylist(), *gone["doc_id"].to_pylist()}
    unwanted = anti_join(gone, wanted, ["doc_id"])
    return _Difference(
        wanted=wanted,
        upserts=upserts,
        deletes=gone["chunk_id"].to_pylist(),
        documents=sorted(documents),
        known=set(ledger["doc_id"].to_pylist()),
        unwanted=chunks_by_document(unwanted),
    )


def _sync(
    part: IndexTables,
    difference: _Difference,
    client: IndexClient,
    collection: str,
    key: str,
    journal: SyncJournal,
    on_written: Callable[[int], None],
) -> SyncResult:
    wanted = difference.wanted
    return sync_partition(
        client,
        collection,
        key,
        changes=joined_rows(part.chunks, part.embeddings, difference.upserts["chunk_id"]),
        delete_ids=difference.deletes,
        expected_count=wanted.num_rows,
        expected=lambda: dict(zip(wanted["chunk_id"].to_pylist(), wanted["row_hash"].to_pylist(), strict=True)),
        rows_for=lambda ids: joined_rows(part.chunks, part.embeddings, pa.array(ids, pa.string())),
        journal=journal,
        on_progress=lambda step, done: on_written(done) if step == "upsert" else None,
    )


def _ledger_rows(difference: _Difference, key: str, model_fingerprint: str) -> Iterator[pa.RecordBatch]:
    touched = pa.array(difference.documents, pa.string())
    rows = difference.wanted.filter(pc.is_in(difference.wanted["doc_id"], touched))
    now = pa.scalar(datetime.now(UTC), _ROW.field("indexed_at").type)
    constants = {
        "partition_key": pa.scalar(key),
        "model_fingerprint": pa.scalar(model_fingerprint),
        "indexed_at": now,
    }
    for batch in rows.to_batches(max_chunksize=65_536):
        columns: dict[str, pa.Array] = {name: pa.repeat(value, batch.num_rows) for name, value in constants.items()}
        columns |= {name: batch.column(name) for name in _WANTED}
        yield pa.record_batch([columns[name] for name in _ROW.names], schema=_ROW)


def _counts(difference: _Difference, result: SyncResult) -> Counts:
    return Counts(
        rows_in=difference.wanted.num_rows,
        new=difference.upserts.num_rows,
        deleted=len(difference.deletes),
        unchanged=difference.wanted.num_rows - difference.upserts.num_rows,
        extra={"repaired": float(result.repaired)},
    )
