"""Sets of questions whose right documents are known: labelled ones of a source, or generated known-item ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from rag_core.config import RagConfig
from rag_core.evaluation.beir import LabelledQueryError, Qrels, load_qrels, load_queries
from rag_core.evaluation.known_item import known_items
from rag_core.retrieval.filters import SearchFilters
from rag_core.retrieval.search import DocumentHit
from rag_core.tables.delta import TableSlice
from rag_core.tables.store import Store

SetName = Literal["labelled", "known_item"]

ALL_SOURCES: Final = "*"


@dataclass(frozen=True)
class QuerySet:
    """Questions and their relevant documents.

    Attributes:
        name: `labelled` or `known_item`; figures of the two must never be compared.
        source: The source that is searched; `ALL_SOURCES` where all are.
        queries: Query id to question; every one has a judgement.
        qrels: Query id to document to relevance. Documents go by their external id in a labelled set, and by doc_id in
            a known-item set, because external ids repeat across sources.
    """

    name: SetName
    source: str
    queries: Mapping[str, str]
    qrels: Qrels

    @property
    def filters(self) -> SearchFilters | None:
        """What the search is restricted to."""
        return None if self.source == ALL_SOURCES else SearchFilters(sources=(self.source,))

    def name_of(self, hit: DocumentHit) -> str:
        """Name a found document as the judgements do."""
        return hit.doc_id if self.name == "known_item" else hit.external_id or hit.doc_id


def labelled_set(source: str, queries: Path, qrels: Path) -> QuerySet:
    """Read a labelled set in BEIR's layout; questions without a judgement are left out.

    Raises:
        LabelledQueryError: A file is not as expected, or no question has a relevant document.
    """
    judged = load_qrels(qrels)
    asked = {name: text for name, text in load_queries(queries).items() if name in judged}
    qrels_of_asked = {name: judged[name] for name in asked}
    if not any(score > 0 for documents in qrels_of_asked.values() for score in documents.values()):
        raise LabelledQueryError(f"{qrels}: no query of {queries} has a relevant document (a score above 0)")
    return QuerySet("labelled", source, asked, qrels_of_asked)


def query_sets(store: Store, config: RagConfig) -> list[QuerySet]:
    """Return the labelled sets of the configuration, and a known-item set for the sources that have none.

    The known items depend on the newest documents alone, not on chunks or models, so that two generations are asked
    the same.

    Raises:
        LabelledQueryError: A configured file is not as expected.
    """
    labelled = [labelled_set(entry.source, entry.queries, entry.qrels) for entry in config.evaluation.labelled]
    without = [source.name for source in config.sources if source.name not in {one.source for one in labelled}]
    documents = TableSlice.newest(store, "documents")
    found = known_items(documents, config.evaluation.known_items, sources=without)
    if not found:
        return labelled
    queries = {item.query_id: item.question for item in found}
    qrels = {item.query_id: {item.doc_id: 1} for item in found}
    return [*labelled, QuerySet("known_item", ALL_SOURCES, queries, qrels)]
