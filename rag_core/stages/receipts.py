"""The receipts of deletions: the table `deletions`, which is only ever appended to."""

from datetime import UTC, datetime
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

from rag_core import ids
from rag_core.errors import TransientError
from rag_core.schemas import TIMESTAMP
from rag_core.tables.delta import TableSlice, ensure_table, in_set
from rag_core.tables.store import Store

TABLE: Final = "deletions"

_AGAIN: Final = pa.field("indexed_again_at", TIMESTAMP)


def receipt_id(doc_id: str, collection: str, absence_seen_at: datetime) -> str:
    """Identify the receipt of one absence of a document from one collection."""
    return ids.digest("deletion", doc_id, collection, f"{absence_seen_at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}")


def write_receipts(store: Store, receipts: pa.Table, *, run_id: str) -> int:
    """Append those receipts that the table does not have yet.

    Returns:
        Receipts written.

    Raises:
        TransientError: Another run wrote receipts of one of the partitions meanwhile.
    """
    table = ensure_table(store, TABLE)
    current = TableSlice(store, TABLE, None, table.version())
    known = current.read(["receipt_id"], in_set("receipt_id", receipts["receipt_id"].combine_chunks()))["receipt_id"]
    new = receipts.filter(pc.invert(pc.is_in(receipts["receipt_id"], known.combine_chunks())))
    if not new.num_rows:
        return 0
    places = sorted(set(zip(new["collection"].to_pylist(), new["partition_key"].to_pylist(), strict=True)))
    properties = CommitProperties(
        custom_metadata={"run_id": run_id},
        # What makes two runs conflict that found the same receipt missing.
        app_transactions=[Transaction("/".join(place), table.version() + 1) for place in places],
    )
    try:
        write_deltalake(table, new, mode="append", commit_properties=properties)
    except CommitFailedError as error:
        raise TransientError(
            f"table {TABLE}: another run wrote receipts of {'/'.join(places[0])} at the same time; run it again"
        ) from error
    return int(new.num_rows)


def read_receipts(
    store: Store, *, doc: str | None = None, since: datetime | None = None, run_id: str | None = None
) -> pa.Table:
    """Read receipts, the oldest first.

    Args:
        store: Holds the tables.
        doc: Only of documents whose doc_id or external_id is this, or whose uri contains it.
        since: Only of rows that were removed at this time or later, aware.
        run_id: Only of this run.

    Returns:
        Columns of the table, and `indexed_again_at`: when rows of the document were last written to the collection
        again after the deletion, if it holds any now; null if the document did not come back.
    """
    where = pc.scalar(True)
    if doc is not None:
        fields = pc.field("doc_id"), pc.field("external_id")
        where = where & ((fields[0] == doc) | (fields[1] == doc) | pc.match_substring(pc.field("uri"), doc))
    if since is not None:
        where = where & (pc.field("removed_at") >= pa.scalar(since, TIMESTAMP))
    if run_id is not None:
        where = where & (pc.field("run_id") == run_id)
    rows = TableSlice.newest(store, TABLE).read(where=where)
    rows = rows.sort_by([("removed_at", "ascending"), ("uri", "ascending"), ("receipt_id", "ascending")])
    return rows.append_column(_AGAIN, _indexed_again(store, rows))


def _indexed_again(store: Store, receipts: pa.Table) -> pa.Array:
    newest: dict[tuple[str, str], datetime] = {}
    if receipts.num_rows:
        columns = ["collection", "doc_id", "indexed_at"]
        where = in_set("doc_id", pc.unique(receipts["doc_id"]))
        ledger = TableSlice.newest(store, "index_partitions").read(columns, where)
        ledger = ledger.group_by(["collection", "doc_id"]).aggregate([("indexed_at", "max")])
        pairs = zip(ledger["collection"].to_pylist(), ledger["doc_id"].to_pylist(), strict=True)
        newest = dict(zip(pairs, ledger["indexed_at_max"].to_pylist(), strict=True))
    keys = zip(receipts["collection"].to_pylist(), receipts["doc_id"].to_pylist(), strict=True)
    times = [newest.get(key) for key in keys]
    removed = receipts["removed_at"].to_pylist()
    again = [time if time and time > at else None for time, at in zip(times, removed, strict=True)]
    return pa.array(again, TIMESTAMP)
