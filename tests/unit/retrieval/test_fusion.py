import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_core.retrieval.fusion import reciprocal_rank_fusion

RANKINGS = st.lists(st.lists(st.sampled_from("abcdefgh"), unique=True), max_size=3)


def test_scores_follow_the_formula() -> None:
    assert reciprocal_rank_fusion([["a", "b"], ["b", "c"]]) == [
        ("b", pytest.approx(1 / 62 + 1 / 61)),
        ("a", pytest.approx(1 / 61)),
        ("c", pytest.approx(1 / 62)),
    ]


def test_ties_are_in_the_order_of_ids_and_repeats_count_once() -> None:
    assert [name for name, _ in reciprocal_rank_fusion([["b", "b"], ["a"]])] == ["a", "b"]
    assert reciprocal_rank_fusion([["a", "a"]]) == reciprocal_rank_fusion([["a"]])
    assert reciprocal_rank_fusion([]) == reciprocal_rank_fusion([[], []]) == []


@given(RANKINGS)
def test_fusion_names_each_once_best_first_and_keeps_a_single_order(rankings: list[list[str]]) -> None:
    fused = reciprocal_rank_fusion(rankings)
    assert sorted(name for name, _ in fused) == sorted({name for ranking in rankings for name in ranking})
    assert [score for _, score in fused] == sorted((score for _, score in fused), reverse=True)
    for ranking in rankings:
        assert [name for name, _ in reciprocal_rank_fusion([ranking])] == ranking
