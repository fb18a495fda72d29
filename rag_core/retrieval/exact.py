"""Exact nearest neighbours, the yardstick of every approximate index."""

import numpy as np


def exact_top_k(vectors: np.ndarray, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the k rows nearest to the query by inner product, which is cosine similarity for unit vectors.

    Args:
        vectors: (n, dim) float32, rows of unit length.
        query: (dim,) float32, unit length, from the same model as `vectors`.
        k: How many rows to return; all of them if k exceeds n.

    Returns:
        (min(k, n),) int64 row numbers, best first, equal scores in row order; and their float32 scores.

    Raises:
        ValueError: If the two dims differ, which means two models were mixed.
    """
    if vectors.ndim != 2 or query.shape != (vectors.shape[1],):
        raise ValueError(f"vectors {vectors.shape} and query {query.shape} do not have the same dimension")
    scores = vectors.astype(np.float32, copy=False) @ query.astype(np.float32, copy=False)
    order = np.argsort(-scores, kind="stable")[: max(k, 0)]
    return order.astype(np.int64), scores[order]
