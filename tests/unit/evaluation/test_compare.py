"""Overlap measures against values worked out by hand, and that a comparison survives being stored."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_core.evaluation.compare import (
    Agreement,
    Comparison,
    Latency,
    Side,
    SourceCounts,
    overlap,
    rank_biased_overlap,
)
from rag_core.evaluation.leaks import Leaks

_ranking = st.lists(st.integers(0, 15).map(str), unique=True, max_size=12)


def test_overlap_by_hand() -> None:
    assert overlap(list("abcd"), list("dcxy"), k=4) == 0.5
    assert overlap(list("abcd"), list("dcba"), k=1) == 0
    assert overlap(["a"], list("ab")) == 0.5
    assert overlap(["a"], []) == 0
    assert overlap([], []) == 1


def test_rank_biased_overlap_by_hand() -> None:
    assert rank_biased_overlap(list("ab"), list("ac"), p=0.5) == pytest.approx(0.5 / 0.5 * (0.5 + 0.5 * 0.25) + 0.125)
    # A difference at the first rank weighs more than one at the last.
    old = list("abcdefghij")
    assert rank_biased_overlap(old, ["x", *old[1:]]) < rank_biased_overlap(old, [*old[:-1], "x"])


@given(_ranking, _ranking)
def test_measures_are_symmetric_and_bounded(old: list[str], new: list[str]) -> None:
    for measure in (overlap, rank_biased_overlap):
        assert measure(old, new) == pytest.approx(measure(new, old))
        assert -1e-12 <= measure(old, new) <= 1 + 1e-12
        assert measure(old, old) == pytest.approx(1)


def test_comparison_as_json_and_back() -> None:
    def side(name: str, p95: float) -> Side:
        latency = {"hybrid": Latency(1.5, p95)}
        return Side(name, latency, {"handbook": SourceCounts(3, 17)}, Leaks(2, 9, 1, ["under label x ..."]))

    made = Comparison(7, {"hybrid": Agreement(0.5, 0.25)}, side("old", 2.0), side("new", 5.0))
    assert Comparison.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    assert made.latency_ratio() == 2.5
    assert made.leaked == 1
