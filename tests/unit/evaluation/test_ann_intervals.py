"""Wilson's interval, and its effective number of trials for means over queries."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_core.evaluation.intervals import recall_interval, wilson


def test_wilson_gives_the_published_values() -> None:
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3.
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0.0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(1 / 29, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


def test_nothing_observed_says_nothing() -> None:
    assert wilson(1.0, 0) == (0.0, 1.0)
    assert recall_interval(np.array([], np.int64), np.array([], np.int64)) == (1.0, 0.0, 1.0)


@given(st.lists(st.tuples(st.integers(0, 10), st.integers(1, 10)), min_size=1, max_size=60))
def test_interval_holds_the_mean_and_stays_in_bounds(pairs: list[tuple[int, int]]) -> None:
    found = np.array([min(one, of) for one, of in pairs], np.int64)
    expected = np.array([of for _, of in pairs], np.int64)
    mean, low, high = recall_interval(found, expected)
    assert mean == pytest.approx(float(np.mean(found / expected)))
    assert 0 <= low <= mean <= high <= 1
    assert high - low <= wilson(mean, len(pairs))[1] - wilson(mean, len(pairs))[0] + 1e-9


def test_misses_that_cluster_widen_the_interval() -> None:
    expected = np.full(100, 10)
    spread = np.where(np.arange(100) % 2, 9, 10)
    whole_queries_lost = np.where(np.arange(100) < 5, 0, 10)
    mean_spread, *narrow = recall_interval(spread, expected)
    mean_lost, *wide = recall_interval(whole_queries_lost, expected)
    assert (mean_spread, mean_lost) == (pytest.approx(0.95), pytest.approx(0.95))
    assert narrow[1] - narrow[0] < 0.5 * (wide[1] - wide[0])


def test_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(3)
    covered = 0
    for _ in range(400):
        share = random.beta(9, 1, size=60)  # queries differ; their mean is 0.9
        _, low, high = recall_interval(random.binomial(10, share), np.full(60, 10))
        covered += low <= 0.9 <= high
    assert 0.91 <= covered / 400 <= 0.99
