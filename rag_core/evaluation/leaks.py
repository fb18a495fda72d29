"""Access labels: whether a search that is restricted to a label shows rows of documents that have another.

The documents table is the one source of truth: what a row of the index says of itself is what is in doubt.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from rag_core import ids
from rag_core.evaluation.target import SearchTarget
from rag_core.index.client import IndexClient
from rag_core.retrieval.filters import SearchFilters
from rag_core.retrieval.ranking import modes_of
from rag_core.tables.delta import TableSlice, in_set
from rag_core.tables.store import Store

_LABELS: Final = 20
_QUESTIONS: Final = 5
_DEPTH: Final = 50
_EXAMPLES: Final = 5


@dataclass(frozen=True)
class Leaks:
    """What searches under a filter by access label showed.

    Attributes:
        labels: Labels that were searched under.
        documents: Pairs of label and document that were found and verified.
        leaked: Those of them whose document has another label now, or is gone.
        examples: A few of the leaked: label, doc_id, and what is wrong, as a sentence each.
    """

    labels: int
    documents: int
    leaked: int
    examples: list[str] = field(default_factory=list)


def find_leaks(
    client: IndexClient,
    store: Store,
    target: SearchTarget,
    questions: Sequence[str],
    *,
    max_labels: int = _LABELS,
    depth: int = _DEPTH,
) -> Leaks:
    """Search under access labels and verify every document that is found.

    Dense and BM25 are asked apart: fusion only reorders what they find.

    Args:
        client: Connected to the Milvus that holds the collection.
        store: Holds the documents table, of which the newest version counts.
        target: The collection.
        questions: The first few are asked under every label.
        max_labels: Labels that are tried, in the order of a digest.
        depth: Documents looked at in each search.
    """
    documents = TableSlice.newest(store, "documents")
    labels = pc.unique(documents.read(["access_label"], pc.field("status") == "ok")["access_label"]).to_pylist()
    labels = sorted(labels, key=lambda label: ids.digest("leaks", label))[:max_labels]
    asked = list(questions)[:_QUESTIONS]
    vectors = target.embed(asked)
    shown = {
        (label, hit.doc_id)
        for label in labels
        for text, vector in zip(asked, vectors, strict=True)
        for mode in modes_of(client, target.collection)
        if mode != "hybrid"
        for hit in target.rank(
            client, text, vector, mode=mode, depth=depth, filters=SearchFilters(access_labels=(label,))
        )
    }
    wrong = _wrong(documents, sorted(shown))
    return Leaks(labels=len(labels), documents=len(shown), leaked=len(wrong), examples=wrong[:_EXAMPLES])


def _wrong(documents: TableSlice, shown: Sequence[tuple[str, str]]) -> list[str]:
    names = pa.array(sorted({doc_id for _, doc_id in shown}), pa.string())
    rows = documents.read(["doc_id", "access_label", "status"], in_set("doc_id", names))
    now = {row["doc_id"]: row["access_label"] for row in rows.to_pylist() if row["status"] == "ok"}
    return [
        f"under label {label[:12]} document {doc_id} was found, which "
        + (f"has label {now[doc_id][:12]}" if doc_id in now else "is gone")
        for label, doc_id in shown
        if now.get(doc_id) != label
    ]
