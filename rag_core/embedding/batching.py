"""How texts are packed into batches: sorted by length, bounded by padded tokens, so that little padding is computed."""

from typing import Final

import numpy as np

_SHORTEST_SHARE: Final = 0.8  # a text shorter than this share of its batch's longest starts a batch of its own ...
_SMALLEST_SHARE: Final = 4  # ... unless the batch holds less than a quarter of its budget, too little to be efficient


def padded_length(tokens: int, multiple: int) -> int:
    """Round a length up to a multiple, at which matrix kernels run at full width."""
    return -(-tokens // multiple) * multiple


def plan_batches(lengths: np.ndarray, *, batch_tokens: int, multiple: int = 1) -> list[np.ndarray]:
    """Pack texts into batches of at most `batch_tokens` padded tokens.

    Texts of very different length are kept apart, so that a call with few texts is not mostly padding. The longest
    come first: what does not fit into memory shows at the start, not after an hour.

    Args:
        lengths: (n,) tokens of each text, at least 1.
        batch_tokens: Bound for rows times padded length; a single longer text is a batch of its own.
        multiple: Padded lengths are multiples of this.

    Returns:
        Arrays of positions in `lengths`; each position is in exactly one.
    """
    order = np.argsort(-lengths, kind="stable")
    descending = lengths[order]
    batches, start = [], 0
    while start < len(order):
        width = padded_length(int(descending[start]), multiple)
        alike = int(np.searchsorted(-descending, -_SHORTEST_SHARE * descending[start], side="right")) - start
        rows = max(1, min(batch_tokens // width, max(alike, batch_tokens // _SMALLEST_SHARE // width)))
        batches.append(order[start : start + rows])
        start += rows
    return batches


def pad(token_ids: list[list[int]], *, pad_id: int, multiple: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (token ids, attention mask), both (n, padded length) int64, padded on the right."""
    lengths = np.array([len(row) for row in token_ids])
    width = padded_length(int(lengths.max()), multiple)
    mask = np.arange(width) < lengths[:, None]
    ids = np.full((len(token_ids), width), pad_id, np.int64)
    ids[mask] = np.concatenate([np.asarray(row, np.int64) for row in token_ids])
    return ids, mask.astype(np.int64)
