"""The budget of tokens is kept, and is new each day."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.answers.budget import TokenBudget, estimated_tokens


def test_reservations_are_given_back_and_the_day_begins_anew() -> None:
    days = [date(2026, 1, 1)]
    budget = TokenBudget(100, today=lambda: days[-1])
    assert budget.reserve(80)
    assert not budget.reserve(30)
    budget.settle(80, 10)
    assert budget.reserve(90)
    assert not budget.reserve(1)
    days.append(date(2026, 1, 2))
    assert budget.used == 90  # what is being written still counts
    budget.settle(90, 20)
    assert budget.reserve(80)
    assert not budget.reserve(1)


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 60)), max_size=20))
def test_no_more_than_the_budget_is_reserved_at_once(requests: list[tuple[int, int]]) -> None:
    budget = TokenBudget(100)
    for reserved, used in requests:
        if budget.reserve(reserved):
            assert budget.used <= 100
            budget.settle(reserved, min(used, reserved))
    assert budget.used <= 100


def test_without_a_bound_everything_is_reserved_and_counted() -> None:
    budget = TokenBudget(None)
    assert budget.reserve(10**9)
    assert budget.used == 10**9


def test_tokens_are_estimated_upwards() -> None:
    assert [estimated_tokens(text) for text in ("", "a", "four", "fives", "日本")] == [0, 1, 1, 2, 2]
