"""Single documents out of the table `documents`, by id."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rag_core import ids
from rag_core.config import RagConfig
from rag_core.tables.delta import TableSlice, in_set
from rag_core.tables.store import Store


def read_document(
    store: Store, config: RagConfig, doc_id: str, columns: Sequence[str] | None = None
) -> dict[str, Any] | None:
    """Return the row of a document that has text; None if there is no such document.

    Args:
        store: Holds the table.
        config: Says in which partitions a document can be.
        doc_id: The document.
        columns: Default: all.
    """
    found = _read(store, config, [doc_id], columns)
    return found.to_pylist()[0] if found.num_rows else None


def labels_of(store: Store, config: RagConfig, doc_ids: Sequence[str]) -> dict[str, str]:
    """Return the access labels that documents have now; those that are gone are missing."""
    if not doc_ids:
        return {}
    rows = _read(store, config, doc_ids, ["doc_id", "access_label"])
    return dict(zip(rows["doc_id"].to_pylist(), rows["access_label"].to_pylist(), strict=True))


def _read(store: Store, config: RagConfig, doc_ids: Sequence[str], columns: Sequence[str] | None) -> pa.Table:
    documents = TableSlice.newest(store, "documents")
    ok = pc.field("status") == "ok"
    # Most documents are objects themselves and lie in the bucket of their id; members lie in that of their object.
    usual = {
        ids.partition_key(source.name, ids.bucket_of(doc_id, config.buckets_of(source)), config.buckets_of(source))
        for source in config.sources
        for doc_id in doc_ids
    }
    names = list(columns) if columns is not None else None
    found = documents.of(*sorted(usual)).read(names, in_set("doc_id", list(doc_ids)) & ok)
    if found.num_rows < len(set(doc_ids)):
        found = documents.read(names, in_set("doc_id", list(doc_ids)) & ok)
    return found
