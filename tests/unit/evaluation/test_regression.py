"""The paired test against known cases and scipy, and what is refused as a regression."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rag_core.config import EvaluationConfig
from rag_core.errors import PermanentError
from rag_core.evaluation.regression import Finding, PairedTest, mean_interval, paired_test, regression
from rag_core.schemas import RETRIEVAL_EVAL

_scores = st.lists(
    st.tuples(st.floats(0, 1, allow_subnormal=False), st.floats(0, 1, allow_subnormal=False)), min_size=1, max_size=12
)


def rows(values: dict[str, float], *, query_set: str = "labelled", mode: str = "hybrid", source: str = "s") -> pa.Table:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    made = [
        {
            "query_id": query, "query_set": query_set, "source": source, "mode": mode, "collection": "c",
            "evaluated_at": at, "ndcg_at_10": value, "recall_at_10": value, "recall_at_100": value, "mrr": value,
        }
        for query, value in values.items()
    ]  # fmt: skip
    return pa.Table.from_pylist(made, schema=RETRIEVAL_EVAL)


def pairs(count: int, loss: float, noise: float, seed: int = 3) -> tuple[dict[str, float], dict[str, float]]:
    random = np.random.default_rng(seed)
    old = random.uniform(0.3, 0.9, count)
    new = old - loss + random.normal(scale=noise, size=count)
    return {f"q{n}": value for n, value in enumerate(old)}, {f"q{n}": value for n, value in enumerate(new)}


def test_every_sign_of_four_queries() -> None:
    # 16 ways to flip four equal differences, of which two are as far from zero: all up, all down.
    assert paired_test([0, 0, 0, 0], [1, 1, 1, 1]) == PairedTest(1.0, 2 / 16, 1.0, 1.0, 4)


def test_exact_p_value_by_hand() -> None:
    differences = np.array([0.5, -0.1, 0.3])
    signs = np.array(np.meshgrid(*[[1, -1]] * 3)).reshape(3, -1)
    means = (differences[:, None] * signs).mean(axis=0)
    expected = np.mean(np.abs(means) >= abs(differences.mean()) - 1e-12)
    assert paired_test(np.zeros(3), differences).p_value == pytest.approx(expected)


def test_no_difference_and_one_query() -> None:
    assert paired_test([0.5, 0.2], [0.5, 0.2]) == PairedTest(0.0, 1.0, 0.0, 0.0, 2)
    assert paired_test([0.5], [0.0]).p_value == 1.0


@pytest.mark.parametrize(("loss", "noise"), [(0.0, 0.1), (0.01, 0.1), (0.05, 0.1), (0.2, 0.05)])
def test_agrees_with_the_t_test_on_well_behaved_values(loss: float, noise: float) -> None:
    old, new = (np.array(list(values.values())) for values in pairs(200, loss, noise))
    test = paired_test(old, new)
    expected = stats.ttest_rel(new, old)
    assert test.p_value == pytest.approx(expected.pvalue, abs=0.02)
    interval = expected.confidence_interval(0.95)
    assert (test.low, test.high) == pytest.approx((interval.low, interval.high), abs=0.004)
    assert test.low <= test.mean_difference <= test.high


@settings(max_examples=25, deadline=None)
@given(_scores)
def test_swapping_the_two_turns_the_sign_only(scores: list[tuple[float, float]]) -> None:
    old, new = zip(*scores, strict=True)
    there, back = paired_test(old, new), paired_test(new, old)
    assert there.mean_difference == pytest.approx(-back.mean_difference)
    assert there.p_value == pytest.approx(back.p_value)  # all 4,096 or fewer signs are tried
    assert 0 < there.p_value <= 1
    assert there.low <= there.mean_difference + 1e-12
    assert there.high >= there.mean_difference - 1e-12


def test_same_seed_same_outcome() -> None:
    old, new = (list(values.values()) for values in pairs(50, 0.02, 0.1))
    assert paired_test(old, new, seed=1) == paired_test(old, new, seed=1)
    assert paired_test(old, new, seed=1) != paired_test(old, new, seed=2)


@pytest.mark.parametrize(("old", "new"), [([], []), ([1.0], [1.0, 2.0]), ([1.0], [float("nan")]), ([[1.0]], [[1.0]])])
def test_what_cannot_be_compared(old: list[float], new: list[float]) -> None:
    with pytest.raises(ValueError, match=r"query|finite"):
        paired_test(old, new)


def test_interval_of_equal_values_is_a_point() -> None:
    assert mean_interval(np.array([0.25, 0.25])) == (0.25, 0.25)


@pytest.mark.parametrize(
    ("loss", "noise", "count", "refused"),
    [
        (0.10, 0.1, 200, True),
        (0.01, 0.01, 200, False),  # beyond chance, but small
        (0.10, 0.3, 5, False),  # large, but may be chance
        (-0.10, 0.1, 200, False),  # a gain
    ],
)
def test_large_losses_beyond_chance_are_refused(loss: float, noise: float, count: int, refused: bool) -> None:
    old, new = pairs(count, loss, noise)
    [finding] = regression(rows(old), rows(new), EvaluationConfig())
    assert finding.refused is refused
    assert finding.test.queries == count
    assert ("refused" in finding.sentence) is refused
    assert Finding.from_dict(finding.to_dict()) == finding


def test_limits_come_from_the_configuration() -> None:
    old, new = (rows(values) for values in pairs(200, 0.1, 0.1))
    assert not regression(old, new, EvaluationConfig(max_regression=0.5))[0].refused
    assert not regression(old, new, EvaluationConfig(significance=1e-9))[0].refused


def test_only_common_queries_count_and_sets_and_modes_are_apart() -> None:
    old = pa.concat_tables([
        rows({"a": 1.0, "b": 0.5, "gone": 1.0}),
        rows({"a": 0.25}, mode="dense"),
        rows({"a": 0.125}, query_set="known_item", source="*"),
        rows({"a": 0.5}, source="only_old"),
    ])  # fmt: skip
    new = pa.concat_tables([
        rows({"a": 1.0, "b": 0.5, "new": 0.0}),
        rows({"a": 0.75}, mode="dense"),
        rows({"a": 0.5}, query_set="known_item", source="*"),
        rows({"other": 0.5}, mode="bm25"),
    ])  # fmt: skip
    found = regression(old, new, EvaluationConfig())
    assert [(one.query_set, one.source, one.mode, one.old_mean, one.new_mean, one.test.queries) for one in found] == [
        ("known_item", "*", "hybrid", 0.125, 0.5, 1),
        ("labelled", "s", "dense", 0.25, 0.75, 1),
        ("labelled", "s", "hybrid", 0.75, 0.75, 2),
    ]
    assert "known_item queries of all sources" in found[0].sentence


def test_nothing_to_compare() -> None:
    assert regression(RETRIEVAL_EVAL.empty_table(), rows({"a": 1.0}), EvaluationConfig()) == []


def test_two_evaluations_at_once_are_refused() -> None:
    twice = pa.concat_tables([rows({"a": 1.0}), rows({"a": 0.0})])
    with pytest.raises(PermanentError, match="query a occurs twice"):
        regression(twice, rows({"a": 1.0}), EvaluationConfig())
