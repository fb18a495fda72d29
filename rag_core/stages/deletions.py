"""Deletions with receipts: of each document that was removed from a collection, that nothing of it can be found.

The order is: note what there is, delete, verify, write the receipt, write the ledger. What is still found fails the run
before the receipt, so no receipt and no ledger says that it is gone. After a crash anywhere the ledger still has the
rows, so the run after it takes the same way; the key of a receipt is the same then, and it is written once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import pyarrow as pa

from rag_core.errors import TransientError
from rag_core.faults import crash_point
from rag_core.index.client import IndexClient
from rag_core.index.samples import names_of, samples_of
from rag_core.index.unfindable import Sample, found_by_id, found_by_text, found_by_vector
from rag_core.schemas import DELETIONS
from rag_core.stages.absence import SOURCE_REMOVED, Absence, AbsenceFinder, removal_reasons
from rag_core.stages.receipts import receipt_id, write_receipts
from rag_core.stages.removal_notes import Note, RemovalNotes
from rag_core.tables.delta import TableSlice, in_set
from rag_core.tables.store import Store

SEARCHED_DOCUMENTS: Final = 200
"""Documents of a run and collection whose texts and vectors are searched for; of more, only the ids are looked up."""

SEARCHED_CHUNKS: Final = 5
"""Chunks of a document that are searched for."""

_NAMED: Final = 5  # documents in a message


class CacheInvalidation(Protocol):
    """What keeps answers or hits, and must not give out those of removed documents."""

    def forget(self, doc_ids: Sequence[str]) -> None:
        """Forget all that was made from these documents; returns once it is done. Done again without effect."""


@dataclass
class _Part:
    """One partition on its way from notes to receipts."""

    notes: dict[str, Note]
    rows: Mapping[str, Sequence[str]]
    receipts: list[dict[str, Any]] = field(default_factory=list)


class Removals:
    """The removed documents of one collection in one run. For each partition: `note`, delete the rows, `verify`.

    Then `write`, the ledger's commit, and `end`.
    """

    def __init__(
        self,
        store: Store,
        client: IndexClient,
        collection: str,
        *,
        run_id: str,
        caches: CacheInvalidation | None = None,
        searched_documents: int = SEARCHED_DOCUMENTS,
    ) -> None:
        """Name the collection; nothing is read or written yet.

        Args:
            store: Holds the tables.
            client: Connected to the Milvus that holds the collection.
            collection: The collection; it exists.
            run_id: Kept in the receipts.
            caches: Told of the removed documents; None where there are no caches.
            searched_documents: Documents whose texts and vectors are searched for, the first of the run.
        """
        self._store = store
        self._client = client
        self._collection = collection
        self._run_id = run_id
        self._caches = caches
        self._left = searched_documents
        self._notes = RemovalNotes(store, collection)
        self._absences = AbsenceFinder(store)
        self._seen: list[str] = []
        self._parts: dict[str, _Part] = {}

    def note(
        self,
        partition_key: str,
        rows: Mapping[str, Sequence[str]],
        *,
        taken_out: Mapping[str, Absence] | None = None,
    ) -> list[str]:
        """Keep what is known of documents whose rows are all about to be deleted, and say which were removed.

        To be called for every partition that is brought up to date, also with no document: what an earlier run noted is
        out of date then.

        Args:
            partition_key: Their partition.
            rows: doc_id -> all chunk ids that it has in the collection.
            taken_out: All of them belong to a source that the configuration does not have any more. Without it the
                documents table tells: a document that it has as ok was not removed.

        Returns:
            The removed documents, sorted.
        """
        self._seen.append(partition_key)
        if taken_out is None:
            reasons = removal_reasons(self._store, partition_key, rows)
        else:
            reasons = dict.fromkeys(rows, SOURCE_REMOVED)
        if not reasons:
            return []
        removed = {doc_id: rows[doc_id] for doc_id in sorted(reasons)}
        notes = self._made(partition_key, removed, reasons, taken_out)
        self._notes.save(partition_key, notes.values())
        self._parts[partition_key] = _Part(notes, removed)
        crash_point("deletions.after_note")
        return sorted(removed)

    def verify(self, partition_key: str) -> None:
        """Make sure that nothing is found of a partition's noted documents, now that their rows are deleted.

        Raises:
            TransientError: Something is.
        """
        part = self._parts.get(partition_key)
        if part is None:
            return
        removed_at = datetime.now(UTC)
        samples = [sample for note in part.notes.values() for sample in note.samples]
        by_id = found_by_id(self._client, self._collection, part.rows)
        by_text = found_by_text(self._client, self._collection, samples)
        by_vector = found_by_vector(self._client, self._collection, samples)
        self._refuse(partition_key, {"id": by_id, "own text": by_text, "own vector": by_vector})
        verified_at = datetime.now(UTC)
        part.receipts = [
            self._receipt(partition_key, note, len(part.rows[note.doc_id]), removed_at, verified_at)
            for note in part.notes.values()
        ]

    def write(self) -> int:
        """Tell the caches, and write the receipts of all verified partitions that have none yet.

        Returns:
            Documents removed, whether their receipts were written now or by a run that was cut off.

        Raises:
            TransientError: Another run wrote receipts of one of the partitions meanwhile.
        """
        rows = [receipt for part in self._parts.values() for receipt in part.receipts]
        if not rows:
            return 0
        crash_point("deletions.before_receipts")
        if self._caches is not None:
            self._caches.forget([row["doc_id"] for row in rows])
            told_at = datetime.now(UTC)
            rows = [{**row, "caches_told_at": told_at} for row in rows]
        write_receipts(self._store, pa.Table.from_pylist(rows, schema=DELETIONS), run_id=self._run_id)
        crash_point("deletions.after_receipts")
        return len(rows)

    @property
    def not_searched(self) -> int:
        """How many of the verified documents were looked up by id only."""
        receipts = [receipt for part in self._parts.values() for receipt in part.receipts]
        return sum(receipt["unfindable_by_vector"] is None for receipt in receipts)

    def end(self) -> None:
        """Forget the notes, now that the ledger has none of the documents' rows any more."""
        for key in self._seen:
            self._notes.remove(key)

    def _made(
        self,
        partition_key: str,
        rows: Mapping[str, Sequence[str]],
        reasons: Mapping[str, str],
        taken_out: Mapping[str, Absence] | None,
    ) -> dict[str, Note]:
        """Take over the notes of a run that was cut off, as far as they hold, and make the others."""
        indexed_at = self._indexed_at(partition_key, rows)
        earlier = {
            doc_id: note
            for doc_id, note in self._notes.load(partition_key).items()
            if doc_id in rows and note.indexed_at == indexed_at.get(doc_id)
        }
        fresh = {doc_id: chunk_ids for doc_id, chunk_ids in rows.items() if doc_id not in earlier}
        absences = self._named(partition_key, fresh) if taken_out is None else taken_out
        samples = self._sampled(partition_key, rows, earlier)
        return {
            doc_id: replace(earlier[doc_id], samples=samples.get(doc_id, ()))
            if doc_id in earlier
            else Note(doc_id, indexed_at.get(doc_id), reasons[doc_id], absences[doc_id], samples.get(doc_id, ()))
            for doc_id in rows
        }

    def _indexed_at(self, partition_key: str, rows: Mapping[str, Sequence[str]]) -> dict[str, datetime]:
        ledger = TableSlice.newest(self._store, "index_partitions", (partition_key,), lane=self._collection)
        newest = ledger.read(["doc_id", "indexed_at"], in_set("doc_id", list(rows)))
        newest = newest.group_by("doc_id").aggregate([("indexed_at", "max")])
        return dict(zip(newest["doc_id"].to_pylist(), newest["indexed_at_max"].to_pylist(), strict=True))

    def _named(self, partition_key: str, rows: Mapping[str, Sequence[str]]) -> dict[str, Absence]:
        """Find when each document's absence was seen; names come from the history, or else from the index."""
        if not rows:
            return {}
        absences = self._absences.find(partition_key, rows)
        nameless = {doc_id: rows[doc_id] for doc_id, absence in absences.items() if not absence.uri}
        for doc_id, names in names_of(self._client, self._collection, partition_key, nameless).items():
            absences[doc_id] = replace(absences[doc_id], uri=names.uri, external_id=names.external_id)
        return absences

    def _sampled(
        self, partition_key: str, rows: Mapping[str, Sequence[str]], earlier: Mapping[str, Note]
    ) -> dict[str, tuple[Sample, ...]]:
        """Read samples of as many documents as may be searched for; those of earlier notes are kept."""
        chosen = {doc_id: rows[doc_id] for doc_id in list(rows)[: self._left]}
        self._left -= len(chosen)
        kept = {doc_id: note.samples for doc_id, note in earlier.items() if note.samples}
        unread = {doc_id: chunk_ids for doc_id, chunk_ids in chosen.items() if doc_id not in kept}
        return kept | samples_of(self._client, self._collection, partition_key, unread, most=SEARCHED_CHUNKS)

    def _receipt(
        self, partition_key: str, note: Note, rows_removed: int, removed_at: datetime, verified_at: datetime
    ) -> dict[str, Any]:
        absence = note.absence
        return {
            "receipt_id": receipt_id(note.doc_id, self._collection, absence.seen_at),
            "doc_id": note.doc_id,
            "partition_key": partition_key,
            "collection": self._collection,
            "uri": absence.uri,
            "external_id": absence.external_id,
            "reason": note.reason,
            "absence_seen_at": absence.seen_at,
            "removed_at": removed_at,
            "rows_removed": rows_removed,
            "unfindable_by_id": True,
            "unfindable_by_text": True if any(sample.terms() for sample in note.samples) else None,
            "unfindable_by_vector": True if note.samples else None,
            "chunks_searched": len(note.samples),
            "verified_at": verified_at,
            "caches_told_at": None,
            "run_id": self._run_id,
        }

    def _refuse(self, partition_key: str, found: Mapping[str, set[str]]) -> None:
        notes = self._parts[partition_key].notes

        def some(doc_ids: set[str]) -> str:
            return ", ".join(notes[doc_id].absence.uri or doc_id for doc_id in sorted(doc_ids)[:_NAMED])

        problems = [f"{len(doc_ids)} by {how} ({some(doc_ids)})" for how, doc_ids in found.items() if doc_ids]
        if problems:
            raise TransientError(
                f"{self._collection}/{partition_key}: removed documents are still found after the deletion of their "
                f"rows: {'; '.join(problems)}. No receipt was written, and the ledger still has them. Rows that no run "
                f"wrote are removed by `rag verify --repair`; then run the partition again"
            )


def chunks_by_document(rows: pa.Table) -> dict[str, list[str]]:
    """Group the chunk_id of rows by their doc_id."""
    grouped = rows.group_by("doc_id").aggregate([("chunk_id", "list")])
    return dict(zip(grouped["doc_id"].to_pylist(), grouped["chunk_id_list"].to_pylist(), strict=True))
