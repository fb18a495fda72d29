"""Texts laid out in rows: every token once, at its place, seen by its own text alone."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rag_core.embedding.packing import pack

texts = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=40), min_size=1, max_size=30)


@given(token_ids=texts, width=st.integers(1, 64))
def test_every_token_is_there_once(token_ids: list[list[int]], width: int) -> None:
    packed = pack(token_ids, pad_id=0, width=width)
    assert packed.ids.shape[1] <= max(width, *map(len, token_ids))
    assert (packed.owner >= 0).sum() == (packed.ids != 0).sum() == sum(map(len, token_ids))
    ends = np.cumsum([len(tokens) for tokens in token_ids])[:-1]
    for number, (tokens, places) in enumerate(zip(token_ids, np.split(packed.flat, ends), strict=True)):
        assert packed.ids.ravel()[places].tolist() == tokens
        assert packed.positions.ravel()[places].tolist() == list(range(len(tokens)))
        assert (packed.owner.ravel()[places] == number).all()


@given(token_ids=texts)
def test_no_two_rows_fit_into_one(token_ids: list[list[int]]) -> None:
    packed = pack(token_ids, pad_id=0, width=64)
    used = np.sort((packed.owner >= 0).sum(axis=1))
    assert len(used) == 1 or used[0] + used[1] > 64


@given(token_ids=texts)
def test_a_token_attends_to_those_of_its_text(token_ids: list[list[int]]) -> None:
    packed = pack(token_ids, pad_id=0, width=64)
    seen = packed.mask.sum(axis=2)[packed.owner >= 0]
    lengths = np.array([len(tokens) for tokens in token_ids])
    assert (seen == lengths[packed.owner[packed.owner >= 0]]).all()
    assert packed.mask.any(axis=2).all(), "a row of nothing but -inf has no softmax"
