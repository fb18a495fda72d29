"""Mending what anti-entropy found in a partition, and nothing else: write new, verify, then delete old.

The rows come from the tables, and only a row that the ledger names is written: where the tables have moved on or have
lost it, the pipeline has to run. Every step can be repeated after a crash; what one leaves behind, the next look finds.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from rag_core.errors import TransientError
from rag_core.index.anti_entropy import SAMPLES, PartitionState, look_at
from rag_core.index.client import IndexClient, slices
from rag_core.index.comparison import Difference
from rag_core.index.joined import joined_rows
from rag_core.index.ledger import IDENTITY, LedgerTables
from rag_core.index.self_search import sample

_LOGGER = logging.getLogger(__name__)
_DELETE_BATCH: Final = 1_000
_NAMED: Final = 5  # ids in a message


@dataclass(frozen=True)
class Repair:
    """What mending a partition did.

    Attributes:
        before: State under the lock, before anything was written.
        after: State afterwards; the same if nothing was to be done.
        written: Rows written.
        deleted: Ids deleted, those included that were written again.
        needs_run: Rows of the ledger that the tables do not have as it says; `rag run` brings tables, ledger and
            collection together.
        skipped: Why nothing was done; empty otherwise.
    """

    before: PartitionState
    after: PartitionState
    written: int = 0
    deleted: int = 0
    needs_run: int = 0
    skipped: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        done = {name: getattr(self, name) for name in ("written", "deleted", "needs_run", "skipped")}
        return {"before": self.before.to_dict(), "after": self.after.to_dict(), **done}


def repair_partition(
    client: IndexClient,
    tables: LedgerTables,
    partition_key: str,
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    is_known: bool = True,
) -> Repair:
    """Make a partition hold what its ledger says, by writing and deleting only the rows in which it differs.

    It is compared, mended and compared again under the write lock, with the ledger as it then is. A partition whose
    sync is under way, or was cut off, is left alone: its ledger is behind, and `rag run` compares it as a whole.

    Args:
        client: Connected to the Milvus that holds the collection.
        tables: The collection's; opened anew here.
        partition_key: The partition.
        samples: Rows to search by their own vectors, before and after. Afterwards as many of those written are searched
            as well, and every one that could not be found before.
        seed: Draws other rows.
        is_known: False for a partition that nobody knows: it is dropped.

    Raises:
        TransientError: Milvus does not hold what was just written, or a run began to write the partition; nothing of
            what is right was touched. Repair again.
        FingerprintMismatchError: The vectors do not belong into the collection; nothing was written.
    """
    with client.write_lock():
        tables = tables.newest()
        look = look_at(client, tables, partition_key, samples=samples, seed=seed, is_known=is_known)
        before = look.state
        if before.is_clean:
            return Repair(before, before)
        if not before.is_settled:
            skipped = "a run is writing this partition, or was cut off while it did; `rag run` ends it"
            return Repair(before, before, skipped=skipped)
        mending = _Mending(client, tables, partition_key)
        if is_known:
            client.ensure_partition(tables.collection, partition_key)
            mending.mend(look.difference)
        else:
            mending.empty(look.difference)
        # What was dropped need not be known to anybody.
        is_known = is_known or not client.has_partition(tables.collection, partition_key)
        after = look_at(
            client,
            tables,
            partition_key,
            samples=samples,
            seed=seed,
            also=[*look.difference.unsearchable, *sample(mending.written, samples, seed)],
            is_known=is_known,
        ).state
    _LOGGER.info("%s/%s: %d rows written, %d deleted", tables.collection, partition_key, *mending.figures)
    return Repair(before, after, len(mending.written), mending.deleted, len(mending.needs_run))


def repair(
    client: IndexClient,
    tables: LedgerTables,
    partitions: Mapping[str, bool],
    *,
    samples: int = SAMPLES,
    seed: int = 0,
) -> Iterator[Repair]:
    """Mend partitions, one after the other; arguments as those of `anti_entropy.verify`.

    A collection that Milvus has lost altogether is made again: every row of its ledger is then missing.

    Yields:
        One repair for each partition, in order.
    """
    name = tables.collection
    if not client.has_collection(name):
        model = tables.model_fingerprint
        client.ensure_collection(name, dim=tables.dim, model_fingerprint=model, config=tables.index)
    client.load(name)
    for key, is_known in partitions.items():
        yield repair_partition(client, tables, key, samples=samples, seed=seed, is_known=is_known)


class _Mending:
    """The steps for one partition, and what they did so far."""

    def __init__(self, client: IndexClient, tables: LedgerTables, partition_key: str) -> None:
        self._client = client
        self._tables = tables
        self._partition = partition_key
        self.written: list[str] = []
        self.needs_run: set[str] = set()
        self.deleted = 0

    @property
    def figures(self) -> tuple[int, int]:
        """Rows written and ids deleted."""
        return len(self.written), self.deleted

    def mend(self, difference: Difference) -> None:
        """Write what is missing, stale or not searchable; then take away what is too much."""
        self._write(self._partition, [*difference.missing, *difference.stale, *difference.unsearchable])
        own = [chunk_id for chunk_id in difference.duplicated if chunk_id not in difference.owners]
        self._replace(self._partition, own)
        self._return_copies(difference)
        self._delete(difference.orphaned)

    def empty(self, difference: Difference) -> None:
        """Drop a partition that nobody knows; on Lite, unlike a deletion, that spares other partitions' rows."""
        self._stop_if_written(self._partition)
        self._client.drop_partition(self._tables.collection, self._partition)
        self.deleted += len(difference.orphaned) + len(difference.duplicated)

    def _return_copies(self, difference: Difference) -> None:
        """Take copies of other partitions' rows away from here. Lite deletes them there as well."""
        owned: dict[str, list[str]] = {}
        for chunk_id, owner in difference.owners.items():
            owned.setdefault(owner, []).append(chunk_id)
        for owner, chunk_ids in sorted(owned.items()):
            # A partition that a run is writing gets its rows back another time: they must not be away until then.
            if not self._tables.journal.is_open(owner):
                self._replace(owner, chunk_ids)

    def _replace(self, owner: str, chunk_ids: Sequence[str]) -> None:
        """Delete every copy of the ids here, then write them once into the partition they belong to.

        This is the one place where a row is away for a moment, a batch at a time: a write in between copies would leave
        which of them answers to chance.
        """
        for some in slices(sorted(chunk_ids), self._client.config.write_batch):
            rows = list(self._rows(owner, some))
            ids = [chunk_id for batch in rows for chunk_id in batch.column("chunk_id").to_pylist()]
            self._delete(ids)
            self._upsert(owner, rows)

    def _write(self, partition_key: str, chunk_ids: Sequence[str]) -> None:
        for batch in self._rows(partition_key, chunk_ids):
            for start in range(0, batch.num_rows, self._client.config.write_batch):
                self._stop_if_written(partition_key)
                self._upsert(partition_key, [batch.slice(start, self._client.config.write_batch)])

    def _rows(self, partition_key: str, chunk_ids: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Read the rows of these chunks as the ledger says they are; note those that the tables have not so."""
        if not chunk_ids:
            return
        wanted, part = pa.array(chunk_ids, pa.string()), self._tables.of(partition_key)
        ledger = self._tables.identities(partition_key)
        ledger = ledger.filter(pc.is_in(ledger["chunk_id"], wanted))
        lacking = set(chunk_ids)
        for batch in joined_rows(part.chunks, part.embeddings, wanted):
            as_told = batch.filter(_agrees(batch, ledger))
            lacking.difference_update(as_told.column("chunk_id").to_pylist())
            if as_told.num_rows:
                yield as_told
        self.needs_run |= lacking

    def _upsert(self, partition_key: str, batches: Iterable[pa.RecordBatch]) -> None:
        hashes: dict[str, str] = {}
        for batch in batches:
            self._client.upsert(self._tables.collection, partition_key, batch)
            hashes.update(zip(batch.column("chunk_id").to_pylist(), batch.column("row_hash").to_pylist(), strict=True))
        if not hashes:
            return
        self._client.flush(self._tables.collection)
        found = self._client.fetch(self._tables.collection, partition_key, list(hashes), ["row_hash"])
        wrong = sorted(i for i, row_hash in hashes.items() if i not in found or found[i]["row_hash"] != row_hash)
        if wrong:
            raise TransientError(f"{self._where}: {len(wrong)} rows not as written, such as {wrong[:_NAMED]}")
        self.written += hashes

    def _delete(self, chunk_ids: Sequence[str]) -> None:
        for some in slices(chunk_ids, _DELETE_BATCH):
            self._stop_if_written(self._partition)
            self._client.delete(self._tables.collection, self._partition, some)
            if left := sorted(self._client.fetch(self._tables.collection, self._partition, some, ())):
                raise TransientError(f"{self._where}: {len(left)} rows found after deletion, such as {left[:_NAMED]}")
            self.deleted += len(some)
        # Until deletions are flushed, Lite brings a deleted id back in every partition as soon as one gets it again.
        if chunk_ids and self._client.capabilities.kind == "lite":
            self._client.flush(self._tables.collection)

    def _stop_if_written(self, partition_key: str) -> None:
        """Stop if a run has begun to write the partition: only a server lets it, where the write lock locks nothing.

        What still slips through between this look and the write, the next comparison finds.
        """
        if self._tables.journal.is_open(partition_key):
            raise TransientError(f"{self._where}: a run began to write {partition_key}; repair again after it")

    @property
    def _where(self) -> str:
        return f"{self._tables.collection}/{self._partition}"


def _agrees(rows: pa.RecordBatch, ledger: pa.Table) -> pa.BooleanArray:
    """Tell which rows are as the ledger says."""
    position = pc.index_in(rows.column("chunk_id"), ledger["chunk_id"].combine_chunks())
    same = position.is_valid()
    for name in IDENTITY[1:]:
        told = ledger[name].combine_chunks().take(position)
        same = pc.and_(same, pc.fill_null(pc.equal(rows.column(name), told), False))
    return same
