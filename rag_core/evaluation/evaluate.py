"""A run of rankings against judgements: measures per query and their means, and rows for `retrieval_eval`."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rag_core.evaluation import metrics
from rag_core.schemas import RETRIEVAL_EVAL

Id = TypeVar("Id", bound=Hashable)


@dataclass(frozen=True, slots=True)
class EvalResult:
    """Measures of a run, one value per evaluated query, in the order of `query_ids`.

    Attributes:
        query_ids: Queries with at least one relevant document, in qrels order.
        ndcg_at_10: (n_queries,) float64, linear gain.
        recall_at_10: (n_queries,) float64.
        recall_at_100: (n_queries,) float64.
        mrr: (n_queries,) float64, reciprocal rank over the whole ranking given (cut it at 10 for MRR@10).
        without_relevant: Queries left out because nothing is judged relevant to them, those of the run without any
            judgement included.
        without_ranking: Evaluated queries for which the run has no ranking, or an empty one; they count as 0.
    """

    query_ids: tuple[str, ...]
    ndcg_at_10: NDArray[np.float64]
    recall_at_10: NDArray[np.float64]
    recall_at_100: NDArray[np.float64]
    mrr: NDArray[np.float64]
    without_relevant: int
    without_ranking: int

    def means(self) -> dict[str, float]:
        """Return the mean of each measure over the evaluated queries, by column name of `retrieval_eval`."""
        columns = ("ndcg_at_10", "recall_at_10", "recall_at_100", "mrr")
        return {column: float(np.mean(getattr(self, column))) for column in columns}

    def to_rows(self, *, query_set: str, source: str, mode: str, collection: str, evaluated_at: datetime) -> pa.Table:
        """Return one row per evaluated query in the schema of `retrieval_eval`.

        Args:
            query_set: labelled or known_item.
            source: Source that was searched; `*` for all.
            mode: dense, bm25 or hybrid.
            collection: Collection that was searched.
            evaluated_at: Aware time, the same for all rows.
        """
        count = len(self.query_ids)
        return pa.table(
            {
                "query_id": list(self.query_ids),
                "query_set": [query_set] * count,
                "source": [source] * count,
                "mode": [mode] * count,
                "collection": [collection] * count,
                "evaluated_at": [evaluated_at] * count,
                "ndcg_at_10": self.ndcg_at_10,
                "recall_at_10": self.recall_at_10,
                "recall_at_100": self.recall_at_100,
                "mrr": self.mrr,
            },
            schema=RETRIEVAL_EVAL,
        )


def evaluate(run: Mapping[str, Sequence[str]], qrels: Mapping[str, Mapping[str, int]]) -> EvalResult:
    """Measure rankings against judgements.

    A query that has relevant documents but no ranking scores 0 (as `trec_eval -c`): a search that finds nothing must
    not raise the mean. A query without relevant documents is left out of the means and counted.

    Args:
        run: Query id to distinct document ids, best first; 100 of them, for recall@100 to mean what it says.
        qrels: Query id to document id to score.

    Raises:
        ValueError: No query has a relevant document, or a ranking holds a document twice (see `distinct`).
    """
    ideals = {query: metrics.ideal_gains(judged) for query, judged in qrels.items()}
    query_ids = tuple(query for query, ideal in ideals.items() if ideal.size)
    if not query_ids:
        raise ValueError("no query has a relevant document; check that the qrels hold scores above 0")
    rows = np.empty((len(query_ids), 4), dtype=np.float64)
    for row, query in enumerate(query_ids):
        ranked, ideal = metrics.gains(run.get(query, ()), qrels[query]), ideals[query]
        rows[row] = (
            metrics.ndcg(ranked, ideal, 10),
            metrics.recall(ranked, ideal, 10),
            metrics.recall(ranked, ideal, 100),
            metrics.reciprocal_rank(ranked),
        )
    return EvalResult(
        query_ids=query_ids,
        ndcg_at_10=rows[:, 0],
        recall_at_10=rows[:, 1],
        recall_at_100=rows[:, 2],
        mrr=rows[:, 3],
        without_relevant=len((set(qrels) | set(run)) - set(query_ids)),
        without_ranking=sum(not run.get(query) for query in query_ids),
    )


def distinct(ids: Iterable[Id]) -> list[Id]:
    """Keep the first place of each id: the rank of a document is the rank of its best chunk."""
    return list(dict.fromkeys(ids))
