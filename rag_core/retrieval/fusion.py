"""Putting rankings together."""

from collections.abc import Sequence
from typing import Final

RRF_K: Final = 60


def reciprocal_rank_fusion(
    rankings: Sequence[Sequence[str]], *, k: int = RRF_K, weights: Sequence[float] | None = None
) -> list[tuple[str, float]]:
    """Fuse rankings by the sum of weight / (k + rank), with ranks from 1.

    Source: Cormack, Clarke, Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning
    Methods", SIGIR 2009.

    Args:
        rankings: Ids, best first; an id repeated within one ranking counts at its best rank only.
        k: Larger values weigh the first ranks less.
        weights: One for each ranking; default: 1.

    Returns:
        Id and score, best first; equal scores in the order of their ids.
    """
    scores: dict[str, float] = {}
    for ranking, weight in zip(rankings, weights or [1.0] * len(rankings), strict=True):
        for rank, name in enumerate(dict.fromkeys(ranking), start=1):
            scores[name] = scores.get(name, 0.0) + weight / (k + rank)
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))
