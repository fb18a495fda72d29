"""Bringing one partition of a collection to what the chunks say: write new, verify, then delete old.

Each step can be repeated after a crash with the same end state. The caller writes the ledger afterwards, and then
ends the journal's mark.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import pyarrow as pa

from rag_core.errors import TransientError
from rag_core.faults import crash_point
from rag_core.index.bulk import BulkImport, ImportRefusedError
from rag_core.index.client import IndexClient, slices
from rag_core.index.journal import SyncJournal

Rows: TypeAlias = pa.RecordBatch | pa.Table
Expected = Callable[[], Mapping[str, str]]
RowsFor = Callable[[Sequence[str]], Iterable[Rows]]
OnProgress = Callable[[str, int], None]

_LOGGER = logging.getLogger(__name__)
_DELETE_BATCH: Final = 1_000
_NAMED: Final = 5  # ids in a message


@dataclass(slots=True)
class SyncResult:
    """What a sync did.

    Attributes:
        upserted: Rows written because they are new or changed.
        deleted: Ids deleted because they are gone.
        imported: Of the rows upserted, those that the server imported from files.
        verified: Rows read back and compared.
        repaired: Rows written or deleted beyond the changes, because the collection was not as the ledger said.
        count: Rows of the partition at the end, by count(*).
        seconds: Wall time by step: upsert, flush, verify, delete, count, repair.
    """

    upserted: int = 0
    deleted: int = 0
    imported: int = 0
    verified: int = 0
    repaired: int = 0
    count: int = 0
    seconds: dict[str, float] = field(default_factory=dict)


def sync_partition(
    client: IndexClient,
    collection: str,
    partition_key: str,
    *,
    changes: Iterable[Rows],
    delete_ids: Sequence[str],
    expected_count: int,
    expected: Expected,
    rows_for: RowsFor | None = None,
    journal: SyncJournal | None = None,
    on_progress: OnProgress | None = None,
) -> SyncResult:
    """Write the changes to one partition and make sure that it then holds what it must.

    Args:
        client: Where to write.
        collection: Its name; it exists.
        partition_key: Dagster partition; its Milvus partition is made if need be.
        changes: New and changed chunks joined with their vectors, as `schema.milvus_rows` takes them; any sizes.
        delete_ids: Chunks that the ledger has and the partition must not have; none of them is in changes.
        expected_count: Rows the partition must hold afterwards.
        expected: Returns row_hash by chunk_id of all that the partition must hold; called only if the count is wrong
            or an earlier sync was cut off.
        rows_for: Returns rows of the chunks asked for, to mend in place what is missing.
        journal: Remembers, across a crash, that the partition needs the full comparison. Without one the caller
            answers for what a count cannot see.
        on_progress: Called with the step's name and the rows it has done so far.

    Returns:
        What was done. The partition then holds what it must, also if nothing changed.

    Raises:
        TransientError: The partition is not as it must be and could not be mended; run the sync again.
        FingerprintMismatchError: The vectors do not belong into the collection; nothing was written.
    """
    sync = _Sync(client, collection, partition_key, on_progress or (lambda step, done: None))
    with client.write_lock():
        interrupted = journal is not None and journal.is_open(partition_key)
        client.ensure_partition(collection, partition_key)
        pending = _sliced(changes, client.config.write_batch)
        first = next(pending, None)
        if journal is not None and (first is not None or delete_ids):
            journal.begin(partition_key)
        bulk = BulkImport(client, collection, partition_key)
        if interrupted:
            bulk.wait_for_earlier()
        if first is not None and not interrupted and not delete_ids and bulk.suits(expected_count):
            sync.bulk_import(bulk, first, pending)
        else:
            sync.upsert(first, pending)
        sync.delete(delete_ids)
        with sync.step("count"):
            sync.result.count = client.count(collection, partition_key)
        if interrupted or sync.result.count != expected_count:
            sync.repair(expected(), rows_for)
        if sync.result.count != expected_count:
            raise TransientError(
                f"{collection}/{partition_key}: {sync.result.count} rows by count(*), expected {expected_count}"
            )
    return sync.result


class _Sync:
    """The steps for one partition, and what they did so far."""

    def __init__(self, client: IndexClient, collection: str, partition_key: str, on_progress: OnProgress) -> None:
        self._client = client
        self._collection = collection
        self._partition = partition_key
        self._on_progress = on_progress
        self.result = SyncResult()

    def upsert(self, first: Rows | None, others: Iterable[Rows]) -> None:
        """Write, flush, read back."""
        crash_point("index.before_upsert")
        hashes: dict[str, str] = {}
        with self.step("upsert"):
            for number, rows in enumerate(_chain(first, others)):
                self.result.upserted += self._write(rows, hashes)
                self._on_progress("upsert", self.result.upserted)
                if number == 0:
                    crash_point("index.mid_upsert")
        crash_point("index.after_upsert")
        if hashes:
            with self.step("flush"):
                self._client.flush(self._collection)
        crash_point("index.after_flush")
        with self.step("verify"):
            self._verify(hashes)
        crash_point("index.after_verify")

    def bulk_import(self, bulk: BulkImport, first: Rows, others: Iterable[Rows]) -> None:
        """Import instead of upserting; what is refused is left to the repair, which upserts."""
        crash_point("index.before_import")
        with self.step("import"):
            try:
                hashes = bulk.write(_chain(first, others))
            except ImportRefusedError as refusal:
                _LOGGER.warning("%s: rows are upserted, because they were not imported: %s", self._where, refusal)
                return
        self.result.upserted = self.result.imported = len(hashes)
        self._on_progress("upsert", len(hashes))
        crash_point("index.after_import")
        with self.step("verify"):
            self._verify(hashes)

    def delete(self, chunk_ids: Sequence[str]) -> None:
        """Delete, and check that nothing of it is found any more."""
        with self.step("delete"):
            for number, some in enumerate(slices(chunk_ids, _DELETE_BATCH)):
                self._remove(some)
                self.result.deleted += len(some)
                self._on_progress("delete", self.result.deleted)
                if number == 0:
                    crash_point("index.mid_delete")
            # A server limits how often a collection is flushed, and applies deletes without it.
            if chunk_ids and self._client.capabilities.kind == "lite":
                self._client.flush(self._collection)
        crash_point("index.after_delete")

    def repair(self, expected: Mapping[str, str], rows_for: RowsFor | None) -> None:
        """Compare every row with what must be there, and mend the difference: missing and stale first, then orphans."""
        with self.step("repair"):
            held = {
                row["chunk_id"]: row["row_hash"]
                for row in self._client.list_rows(self._collection, self._partition, ["row_hash"])
            }
            wrong = sorted(chunk_id for chunk_id, row_hash in expected.items() if held.get(chunk_id) != row_hash)
            orphans = sorted(held.keys() - expected.keys())
            if wrong and rows_for is None:
                raise TransientError(f"{self._where}: {len(wrong)} rows missing or stale, such as {_some(wrong)}")
            hashes: dict[str, str] = {}
            for rows in _sliced(rows_for(wrong) if rows_for and wrong else (), self._client.config.write_batch):
                self.result.repaired += self._write(rows, hashes)
            if unmended := sorted(i for i in wrong if hashes.get(i) != expected[i]):
                raise TransientError(f"{self._where}: no rows to mend {len(unmended)} with, such as {_some(unmended)}")
            for some in slices(orphans, _DELETE_BATCH):
                self._remove(some)
            self.result.repaired += len(orphans)
            if wrong or orphans:
                self._client.flush(self._collection)
            self._verify(hashes)
            self.result.count = self._client.count(self._collection, self._partition)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the block's wall time to the step's."""
        began = time.perf_counter()
        yield
        self.result.seconds[name] = self.result.seconds.get(name, 0.0) + time.perf_counter() - began

    @property
    def _where(self) -> str:
        return f"{self._collection}/{self._partition}"

    def _write(self, rows: Rows, hashes: dict[str, str]) -> int:
        written = self._client.upsert(self._collection, self._partition, rows)
        hashes.update(zip(rows.column("chunk_id").to_pylist(), rows.column("row_hash").to_pylist(), strict=True))
        return written

    def _remove(self, chunk_ids: Sequence[str]) -> None:
        self._client.delete(self._collection, self._partition, chunk_ids)
        if left := self._client.fetch(self._collection, self._partition, chunk_ids, ()):
            raise TransientError(f"{self._where}: {len(left)} rows found after their deletion, such as {_some(left)}")

    def _verify(self, hashes: Mapping[str, str]) -> None:
        found = self._client.fetch(self._collection, self._partition, list(hashes), ["row_hash"])
        wrong = [i for i, row_hash in hashes.items() if i not in found or found[i]["row_hash"] != row_hash]
        if wrong:
            raise TransientError(f"{self._where}: {len(wrong)} rows not as written, such as {_some(wrong)}")
        self.result.verified += len(hashes)


def _sliced(batches: Iterable[Rows], size: int) -> Iterator[Rows]:
    for rows in batches:
        for start in range(0, rows.num_rows, size):
            yield rows.slice(start, size)


def _chain(first: Rows | None, others: Iterable[Rows]) -> Iterator[Rows]:
    if first is not None:
        yield first
    yield from others


def _some(chunk_ids: Iterable[str]) -> str:
    return ", ".join(sorted(chunk_ids)[:_NAMED])
