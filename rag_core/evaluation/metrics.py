"""Ranking measures of one query, as trec_eval (and through it pytrec_eval and BEIR) defines them.

A ranking is a sequence of distinct document ids, best first. Ties are the ranking's business: the order given counts,
whereas trec_eval re-sorts equal scores by document id. A document is relevant when its score is above 0; documents
without a judgement are not relevant.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def gains(ranking: Sequence[str], judged: Mapping[str, int]) -> NDArray[np.float64]:
    """Look the ranking's relevance up.

    Returns:
        (len(ranking),) float64, in ranking order; 0 where a document is unjudged or judged not relevant.

    Raises:
        ValueError: A document occurs twice, which would count it twice.
    """
    if len(set(ranking)) != len(ranking):
        repeated = next(document for document in ranking if ranking.count(document) > 1)
        raise ValueError(f"document {repeated!r} occurs twice in a ranking; keep its first place only")
    return np.fromiter((max(judged.get(document, 0), 0) for document in ranking), np.float64, len(ranking))


def ideal_gains(judged: Mapping[str, int]) -> NDArray[np.float64]:
    """Return the relevant documents' scores, highest first, (n_relevant,) float64."""
    return np.sort(np.array([score for score in judged.values() if score > 0], dtype=np.float64))[::-1]


def ndcg(ranked: NDArray[np.float64], ideal: NDArray[np.float64], k: int) -> float:
    """Normalised discounted cumulative gain at k, with linear gain: DCG@k / DCG@k of the ideal ranking.

    DCG@k is the sum over ranks i = 1..k of gain_i / log2(i + 1). The gain is the judged score itself, as in
    trec_eval's `ndcg_cut`, and not 2^score - 1.

    Source: Järvelin and Kekäläinen 2002, "Cumulated Gain-Based Evaluation of IR Techniques", ACM TOIS 20(4), in the
        form of trec_eval 9 m_ndcg_cut.c (every rank is discounted, by log2(rank + 1)).

    Args:
        ranked: Gains in ranking order, from `gains`.
        ideal: From `ideal_gains`; not empty.
        k: Ranks that count.
    """
    return _dcg(ranked[:k]) / _dcg(ideal[:k])


def recall(ranked: NDArray[np.float64], ideal: NDArray[np.float64], k: int) -> float:
    """Share of all relevant documents that are among the first k.

    Source: Manning, Raghavan, Schütze 2008, "Introduction to Information Retrieval", section 8.3; trec_eval `recall`.
    """
    return float(np.count_nonzero(ranked[:k])) / len(ideal)


def reciprocal_rank(ranked: NDArray[np.float64]) -> float:
    """1 / rank of the first relevant document of the whole ranking, without a cut-off; 0 when there is none.

    Source: Voorhees 1999, "The TREC-8 Question Answering Track Report"; trec_eval `recip_rank`.
    """
    hits = np.flatnonzero(ranked)
    return 1.0 / (float(hits[0]) + 1.0) if hits.size else 0.0


def _dcg(values: NDArray[np.float64]) -> float:
    return float(np.sum(values / np.log2(np.arange(2, len(values) + 2))))
