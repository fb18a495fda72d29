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


@pytest.mark.slow
@given(RANKINGS, st.floats(0.1, 10))
def test_equal_weights_are_no_weights(rankings: list[list[str]], weight: float) -> None:
    weighed = reciprocal_rank_fusion(rankings, weights=[1.0] * len(rankings))
    assert weighed == reciprocal_rank_fusion(rankings)
    # A common factor moves no place but those that rounding makes equal.
    scaled = dict(reciprocal_rank_fusion(rankings, weights=[weight] * len(rankings)))
    assert scaled == pytest.approx({name: weight * score for name, score in weighed})


def test_a_heavier_ranking_wins() -> None:
    assert [name for name, _ in reciprocal_rank_fusion([["a"], ["b"]], weights=[1.0, 1.5])] == ["b", "a"]
