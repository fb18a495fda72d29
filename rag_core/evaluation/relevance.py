"""Relevance of a collection: its rankings of known questions, measured per mode, and the rows that are kept of it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, write_deltalake

from rag_core.evaluation.evaluate import EvalResult, distinct, evaluate
from rag_core.evaluation.query_sets import QuerySet, SetName
from rag_core.evaluation.target import SearchTarget
from rag_core.index.client import IndexClient
from rag_core.retrieval.ranking import Mode, modes_of
from rag_core.schemas import RETRIEVAL_EVAL
from rag_core.tables.delta import TableSlice, ensure_table
from rag_core.tables.store import Store

TABLE: Final = "retrieval_eval"
_DEPTH: Final = 100  # what recall@100 needs


@dataclass(frozen=True)
class Relevance:
    """How well a collection answers one query set in one mode.

    Attributes:
        query_set: labelled or known_item.
        source: Source that was searched; `*` for all.
        mode: dense, bm25 or hybrid.
        collection: Collection that was searched.
        result: Measures per query.
        seconds: Time of the searches, embedding excluded.
    """

    query_set: SetName
    source: str
    mode: Mode
    collection: str
    result: EvalResult
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return means and counts, JSON-able."""
        return {
            "query_set": self.query_set,
            "source": self.source,
            "mode": self.mode,
            "collection": self.collection,
            **self.result.means(),
            "queries": len(self.result.query_ids),
            "without_relevant": self.result.without_relevant,
            "without_ranking": self.result.without_ranking,
            "seconds": round(self.seconds, 3),
        }

    def to_rows(self, evaluated_at: datetime) -> pa.Table:
        """Return one row per query in the schema of `retrieval_eval`."""
        return self.result.to_rows(
            query_set=self.query_set,
            source=self.source,
            mode=self.mode,
            collection=self.collection,
            evaluated_at=evaluated_at,
        )


def measure_relevance(
    client: IndexClient, target: SearchTarget, query_sets: Sequence[QuerySet], *, modes: Sequence[Mode] | None = None
) -> list[Relevance]:
    """Ask a collection every question of the sets, in every mode.

    Documents are ranked by their best chunk, 100 deep. Each question is embedded once.

    Args:
        client: Connected to the Milvus that holds the collection.
        target: The collection; it need not be published.
        query_sets: From `rag_core.evaluation.query_sets`.
        modes: Modes of search; default: all that the collection has.

    Returns:
        One result per set and mode, sets first.

    Raises:
        FingerprintMismatchError: The collection holds vectors of another model.
        TransientError: The server is unreachable or too slow.
    """
    return [
        _measured(client, target, queries, mode, target.embed(list(queries.queries.values())))
        for queries in query_sets
        for mode in modes or modes_of(client, target.collection)
    ]


def relevance_rows(measured: Sequence[Relevance], *, evaluated_at: datetime) -> pa.Table:
    """Return the rows of all results in the schema of `retrieval_eval`."""
    return pa.concat_tables([RETRIEVAL_EVAL.empty_table(), *(one.to_rows(evaluated_at) for one in measured)])


def append_rows(store: Store, rows: pa.Table, *, run_id: str) -> int:
    """Append rows to `retrieval_eval`, in one commit, and return the table's version; no rows, no commit."""
    table = ensure_table(store, TABLE)
    if rows.num_rows:
        properties = CommitProperties(custom_metadata={"run_id": run_id})
        write_deltalake(table, rows, mode="append", commit_properties=properties)
    return TableSlice.newest(store, TABLE).version


def last_rows(store: Store, collection: str, *, until: datetime | None = None) -> pa.Table:
    """Read the newest evaluation of a collection from `retrieval_eval`.

    Args:
        store: Holds the table.
        collection: The collection.
        until: Leave later evaluations out. With the manifest's `published_at` these are the figures that it was
            published with, and not those of a later state that was refused.

    Returns:
        Rows of one `evaluated_at`; none if the collection was never evaluated.
    """
    condition = pc.field("collection") == collection
    if until is not None:
        condition &= pc.field("evaluated_at") <= pa.scalar(until, RETRIEVAL_EVAL.field("evaluated_at").type)
    rows = TableSlice.newest(store, TABLE).read(where=condition)
    newest = pc.max(rows["evaluated_at"])
    return rows.filter(pc.equal(rows["evaluated_at"], newest)) if rows.num_rows else rows


def _measured(client: IndexClient, target: SearchTarget, queries: QuerySet, mode: Mode, vectors: Any) -> Relevance:
    started = time.perf_counter()
    run = {
        query_id: distinct(
            queries.name_of(hit)  # an attachment counts as its mail
            for hit in target.rank(client, text, vector, mode=mode, depth=_DEPTH, filters=queries.filters)
        )
        for (query_id, text), vector in zip(queries.queries.items(), vectors, strict=True)
    }
    seconds = time.perf_counter() - started
    return Relevance(queries.name, queries.source, mode, target.collection, evaluate(run, queries.qrels), seconds)
