"""What the index asset says of removed documents: how many, and what was verified of them."""

from typing import Any

import dagster as dg
import pyarrow.compute as pc

from rag_assets.materialize import markdown_table
from rag_core.stages.receipts import read_receipts
from rag_core.tables.store import Store

_VERIFIED = ("unfindable_by_id", "unfindable_by_text", "unfindable_by_vector")
_SHOWN = ("uri", "reason", "collection", "rows_removed", *_VERIFIED)
_ROWS = 5


def deletions_metadata(store: Store, run_id: str) -> dict[str, Any]:
    """Count the receipts of a run, and show a few."""
    receipts = read_receipts(store, run_id=run_id)
    not_searched = receipts.filter(pc.field("unfindable_by_vector").is_null())
    metadata: dict[str, Any] = {
        "documents_removed": pc.count_distinct(receipts["doc_id"]).as_py(),
        "receipts": receipts.num_rows,
        "receipts_by_id_only": not_searched.num_rows,
    }
    if receipts.num_rows:
        # Those of which the least is known come first.
        rows = [*not_searched.slice(0, _ROWS).to_pylist(), *receipts.slice(0, _ROWS).to_pylist()][:_ROWS]
        metadata["removed_documents"] = dg.MetadataValue.md(markdown_table(_SHOWN, rows))
    return metadata
