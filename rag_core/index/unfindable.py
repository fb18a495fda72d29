"""Whether anything of removed documents can still be found in a collection: by id, by own text, by own vector.

Three read paths, because an index can forget a deletion in one of them: point reads see rows, a search sees what its
index holds.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from rag_core.index import bm25, lexical, schema
from rag_core.index.client import IndexClient, slices
from rag_core.index.self_search import thorough_params

_NO_STATISTICS: Final = bm25.TermStatistics(0, {})  # every term weighs the same: what has all of them comes first
_QUERY_BYTES: Final = 8_192
_DOCUMENTS_AT_ONCE: Final = 500
_QUERIES_AT_ONCE: Final = 32
_OWN_HITS: Final = 5  # of a search among removed documents only: one is too many
_DEPTH: Final = 50  # of a search among all rows; what a user's search fuses


@dataclass(frozen=True, slots=True)
class Sample:
    """A chunk of a document as it was indexed.

    Attributes:
        doc_id: Its document.
        text: The chunk's text.
        title: Of the document; empty if it has none.
        language: ISO 639-1; empty if unknown.
        vector: (dim,) float32, as stored.
    """

    doc_id: str
    text: str
    title: str
    language: str
    vector: np.ndarray

    def terms(self, *, with_title: bool = False) -> dict[int, float]:
        """Return the question that is the chunk's own text, as BM25 asks it; empty for a text without words."""
        text = f"{self.title}\n{self.text}" if with_title else self.text
        languages = ("en", self.language) if self.language else ("en",)
        terms = lexical.query_terms(schema.fit(text, _QUERY_BYTES), languages)
        return bm25.question_vector(terms.split(), _NO_STATISTICS)


def found_by_id(client: IndexClient, collection: str, rows: Mapping[str, Sequence[str]]) -> set[str]:
    """Return the documents of which any partition of the collection holds a row.

    Args:
        client: Connected to the Milvus that holds the collection.
        collection: Its name.
        rows: doc_id -> chunk ids that it had.
    """
    owner = {chunk_id: doc_id for doc_id, chunk_ids in rows.items() for chunk_id in chunk_ids}
    found = {owner[chunk_id] for chunk_id in client.fetch(collection, None, list(owner), ())}
    for some in slices(sorted(rows), _DOCUMENTS_AT_ONCE):
        # Rows under other chunk ids: nobody's ledger has them.
        if client.count(collection, None, schema.any_of("doc_id", some)):
            found.update(one for one in some if client.count(collection, None, schema.any_of("doc_id", [one])))
    return found


def found_by_text(client: IndexClient, collection: str, samples: Sequence[Sample]) -> set[str]:
    """Return the documents that a full-text search for their own texts finds.

    Each text is searched among the removed documents; the first of each document, with its title, among all rows.

    Args:
        client: Connected to the Milvus that holds the collection.
        collection: Its name.
        samples: Any number of each document, in the document's order. Those without words are passed over. A
            collection without words finds none.
    """
    if not client.meta(collection).lexical:
        return set()
    own = [terms for one in samples if (terms := one.terms())]
    first = [terms for one in _first_of_each(samples) if (terms := one.terms(with_title=True))]
    return _found(client, collection, schema.SPARSE, own, first, {one.doc_id for one in samples}, {})


def found_by_vector(client: IndexClient, collection: str, samples: Sequence[Sample]) -> set[str]:
    """Return the documents that a search by their own vectors finds; as `found_by_text`, thorough on any index."""
    if not samples:
        return set()
    # The collection may be one that is kept for rollback, of another index type than is configured.
    index = client.config.model_copy(update={"index_type": client.meta(collection).index_type})
    params = thorough_params(index, _DEPTH, lite=client.capabilities.kind == "lite")
    own = [one.vector for one in samples]
    first = [one.vector for one in _first_of_each(samples)]
    return _found(client, collection, schema.DENSE, own, first, {one.doc_id for one in samples}, params)


def _found(
    client: IndexClient,
    collection: str,
    field: str,
    own: Sequence[Any],
    first: Sequence[Any],
    doc_ids: Collection[str],
    params: Mapping[str, Any],
) -> set[str]:
    found: set[str] = set()
    among_removed = schema.any_of("doc_id", sorted(doc_ids))
    for queries, limit, expression in ((own, _OWN_HITS, among_removed), (first, _DEPTH, "")):
        for some in _parts(queries):
            answers = client.search_many(
                collection,
                field=field,
                queries=some,
                limit=limit,
                fields=("doc_id",),
                expression=expression,
                params=params,
            )
            found.update(row["doc_id"] for hits in answers for _, row in hits)
    return found.intersection(doc_ids)


def _first_of_each(samples: Sequence[Sample]) -> list[Sample]:
    first: dict[str, Sample] = {}
    for one in samples:
        first.setdefault(one.doc_id, one)
    return list(first.values())


def _parts(queries: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        yield queries[start : start + _QUERIES_AT_ONCE]
