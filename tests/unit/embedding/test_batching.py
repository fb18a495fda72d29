"""Batches: every text once, within the budget, little padding."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rag_core.embedding.batching import pad, padded_length, plan_batches

LENGTHS = st.lists(st.integers(1, 600), max_size=200).map(np.array)


@given(LENGTHS, st.integers(16, 5000), st.sampled_from([1, 8, 16]))
def test_every_text_once_within_the_budget_longest_first(lengths: np.ndarray, budget: int, multiple: int) -> None:
    lengths = lengths.astype(int)
    batches = plan_batches(lengths, batch_tokens=budget, multiple=multiple)
    assert sorted(np.concatenate(batches).tolist() if batches else []) == list(range(len(lengths)))
    for batch in batches:
        width = padded_length(int(lengths[batch].max()), multiple)
        assert len(batch) == 1 or len(batch) * width <= budget
    longest = [int(lengths[batch].max()) for batch in batches]
    assert longest == sorted(longest, reverse=True)


def test_few_texts_of_very_different_length_are_not_mostly_padding() -> None:
    lengths = np.array([250, 240, 230, 220, 210] + [20] * 40)
    batches = plan_batches(lengths, batch_tokens=4096, multiple=16)
    assert [len(batch) for batch in batches] == [5, 40]


@given(
    st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=40), min_size=1, max_size=20), st.sampled_from([1, 16])
)
def test_padding_keeps_every_token(rows: list[list[int]], multiple: int) -> None:
    ids, mask = pad(rows, pad_id=0, multiple=multiple)
    assert ids.shape == mask.shape
    assert ids.shape[1] % multiple == 0
    assert [row[keep == 1].tolist() for row, keep in zip(ids, mask, strict=True)] == rows
    assert not ids[mask == 0].any()
