"""Reading some chunks of documents out of a collection, as they are indexed, before they are deleted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from rag_core.index import schema
from rag_core.index.client import IndexClient, slices
from rag_core.index.unfindable import Sample
from rag_core.index.vectors import decoded

_ROWS_AT_ONCE: Final = 100  # with text and vector
_FIELDS: Final = ("doc_id", "text", "title", "language", schema.DENSE)


@dataclass(frozen=True, slots=True)
class Names:
    """What a document is called in the index."""

    uri: str
    external_id: str | None


def samples_of(
    client: IndexClient, collection: str, partition_key: str, rows: Mapping[str, Sequence[str]], *, most: int
) -> dict[str, tuple[Sample, ...]]:
    """Read some chunks of each document: the first, the last, and others at equal distances.

    Args:
        client: Connected to the Milvus that holds the collection.
        collection: Its name.
        partition_key: The documents' partition.
        rows: doc_id -> chunk ids.
        most: Chunks of one document.

    Returns:
        doc_id -> samples in the document's order; a document of which the index has no row is left out.
    """
    chunk_ids = [chunk_id for ids in rows.values() for chunk_id in ids]
    ordinals = client.fetch(collection, partition_key, chunk_ids, ("ordinal",))
    chosen: dict[str, list[str]] = {}
    for doc_id, ids in rows.items():
        ordered = sorted((one for one in ids if one in ordinals), key=lambda one: (ordinals[one]["ordinal"], one))
        if ordered:
            positions = np.linspace(0, len(ordered) - 1, min(most, len(ordered))).round().astype(int)
            chosen[doc_id] = [ordered[position] for position in positions]
    read: dict[str, dict[str, Any]] = {}
    for some in slices([chunk_id for ids in chosen.values() for chunk_id in ids], _ROWS_AT_ONCE):
        read |= client.fetch(collection, partition_key, some, _FIELDS)
    vector_type = client.meta(collection).vector_type if read else ""
    return {
        doc_id: tuple(_sample(read[chunk_id], vector_type) for chunk_id in ids if chunk_id in read)
        for doc_id, ids in chosen.items()
    }


def names_of(
    client: IndexClient, collection: str, partition_key: str, rows: Mapping[str, Sequence[str]]
) -> dict[str, Names]:
    """Read what documents are called, from one row of each; a document without a row is left out."""
    first = [min(chunk_ids) for chunk_ids in rows.values() if chunk_ids]
    found = client.fetch(collection, partition_key, first, ("doc_id", "uri", "external_id"))
    return {row["doc_id"]: Names(row["uri"], row["external_id"] or None) for row in found.values()}


def _sample(row: Mapping[str, Any], vector_type: str) -> Sample:
    vector = decoded(row[schema.DENSE], vector_type)
    return Sample(row["doc_id"], row["text"], row["title"], row["language"], vector)
