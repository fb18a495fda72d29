"""Measures of vectors, computed batch by batch so that the vectors themselves are never held."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# Odd 64-bit weights: equal rows get equal sums, different rows different ones but for a chance of about 2^-64.
_SEED = 20_240_229
_DECIMALS = 1_000  # vectors that agree to three decimals count as one


def measure(vectors: pa.Array) -> dict[str, Any]:
    """Measure each vector of a list array; a null vector has null measures.

    Returns:
        dim: Entries. norm: Euclidean length, null unless all entries are finite. nan_count: entries that are null, NaN
        or infinite. hash: unsigned 64-bit digest of the entries rounded to three decimals.
    """
    dims = pc.list_value_length(vectors).to_numpy(zero_copy_only=False).astype(np.float64)
    present = np.flatnonzero(~np.isnan(dims))
    entries = np.asarray(vectors.flatten().to_numpy(zero_copy_only=False), dtype=np.float32)
    norm = np.full(len(vectors), np.nan)
    nan_count = np.full(len(vectors), np.nan)
    digest = np.zeros(len(vectors), dtype=np.uint64)
    ends = np.cumsum(dims[present]).astype(np.int64)
    for dim in np.unique(dims[present]).astype(np.int64):  # almost always one
        rows = np.flatnonzero(dims[present] == dim)
        block = entries.reshape(-1, dim) if len(rows) == len(present) and dim else _gather(entries, ends, rows, dim)
        where = present[rows]
        finite = np.isfinite(block)
        nan_count[where] = dim - finite.sum(axis=1)
        lengths = np.sqrt(np.einsum("ij,ij->i", block, block, dtype=np.float64))
        norm[where] = np.where(finite.all(axis=1), lengths, np.nan)
        digest[where] = _digest(np.where(finite, block, 0))
    return {"dim": dims, "norm": norm, "nan_count": nan_count, "hash": digest}


def _gather(entries: np.ndarray, ends: np.ndarray, rows: np.ndarray, dim: int) -> np.ndarray:
    """Collect the vectors of one dimension: (len(rows), dim)."""
    starts = ends[rows] - dim
    gathered: np.ndarray = entries[starts[:, None] + np.arange(dim)]
    return gathered


def _digest(block: np.ndarray) -> np.ndarray:
    weights = np.random.default_rng(_SEED).integers(1, 2**63, size=block.shape[1], dtype=np.uint64) | np.uint64(1)
    rounded = np.rint(block * np.float32(_DECIMALS)).astype(np.int64).view(np.uint64)
    digests: np.ndarray = (rounded * weights).sum(axis=1, dtype=np.uint64)
    return digests
