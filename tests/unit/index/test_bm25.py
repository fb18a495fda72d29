"""The product of the two sparse vectors is BM25, and frequencies are counted as the formula means them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_core.index.bm25 import (
    AVERAGE_TERMS,
    K1,
    B,
    TermStatistics,
    chunk_vector,
    count_terms,
    question_vector,
    term_id,
)

WORDS = st.sampled_from(["pump", "valve", "shelf", "crate", "motor", "gasket"])
CHUNKS = st.lists(st.lists(WORDS, max_size=30), min_size=1, max_size=12)


def textbook(question: list[str], chunk: list[str], chunks: list[list[str]]) -> float:
    """Okapi BM25 straight from the formula."""
    score = 0.0
    for term in set(question):
        with_term = sum(term in other for other in chunks)
        idf = math.log(1 + (len(chunks) - with_term + 0.5) / (with_term + 0.5))
        frequency = chunk.count(term)
        norm = K1 * (1 - B + B * len(chunk) / AVERAGE_TERMS)
        score += idf * frequency * (K1 + 1) / (frequency + norm)
    return score


@given(CHUNKS, st.lists(WORDS, max_size=5))
def test_product_is_bm25(chunks: list[list[str]], question: list[str]) -> None:
    asked = question_vector(question, count_terms(chunks))
    for chunk in chunks:
        stored = chunk_vector(chunk)
        product = sum(weight * stored.get(number, 0.0) for number, weight in asked.items())
        assert product == pytest.approx(textbook(question, chunk, chunks))


def test_rare_term_weighs_more_and_unknown_most() -> None:
    statistics = count_terms([["pump"], ["pump", "valve"], ["pump"]])
    weights = question_vector(["pump", "valve", "unheard"], statistics)
    assert 0 < weights[term_id("pump")] < weights[term_id("valve")] < weights[term_id("unheard")]


def test_without_statistics_all_terms_weigh_the_same() -> None:
    assert len(set(question_vector(["pump", "valve"], TermStatistics(0, {})).values())) == 1


@given(st.text())
def test_term_ids_are_stable_dimensions(term: str) -> None:
    assert 0 < term_id(term) < 2**31
    assert term_id(term) == term_id(term)
