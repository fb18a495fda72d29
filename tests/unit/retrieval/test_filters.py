from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_core.errors import PermanentError
from rag_core.retrieval.filters import SearchFilters


def test_no_restriction_is_an_empty_condition() -> None:
    assert SearchFilters().to_expression() == ""
    assert SearchFilters(expression="  ").to_expression() == ""
    assert not SearchFilters().admits_nothing


def test_restrictions_are_joined() -> None:
    filters = SearchFilters(
        sources=["a", "b"],
        modified_after=datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC),
        modified_before=datetime(1970, 1, 1, 0, 0, 2, tzinfo=UTC),
        expression="page == 1 or page == 2",
    )
    assert filters.to_expression() == (
        'source in ["a", "b"] and modified_at >= 1000 and modified_at > 0 and modified_at < 2000 '
        "and (page == 1 or page == 2)"
    )


def test_unknown_times_pass_no_time_filter() -> None:
    assert SearchFilters(modified_after=datetime(1970, 1, 1, tzinfo=UTC)).to_expression() == "modified_at >= 1"


def test_naive_time_is_an_error() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        SearchFilters(modified_after=datetime(2026, 1, 1)).to_expression()  # noqa: DTZ001 the error is the point


@pytest.mark.parametrize("name", ["sources", "mimes", "languages", "access_labels", "doc_ids", "partition_keys"])
def test_empty_restriction_admits_nothing(name: str) -> None:
    assert SearchFilters(**{name: ()}).admits_nothing


@pytest.mark.parametrize(
    "expression",
    [
        "page == 1) or (true",
        "(page == 1",
        "page in [1",
        "page in [1)]",
        'mime == "x',
        "mime == 'x\\'",
        'mime == "a" )(',
    ],
)
def test_expression_cannot_break_out(expression: str) -> None:
    with pytest.raises(PermanentError, match="filter expression"):
        SearchFilters(access_labels=["x"], expression=expression).to_expression()


@pytest.mark.parametrize(
    "expression", ["(page == 1)", 'mime == ")"', "mime == '(\\''", "page in [1, 2] and (page == 2)"]
)
def test_balanced_expression_passes(expression: str) -> None:
    assert SearchFilters(expression=expression).to_expression() == f"({expression})"


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_values_never_become_syntax(values: list[str]) -> None:
    from milvus_lite.search.filter import parse_expr
    from milvus_lite.search.filter.ast import InOp

    parsed = parse_expr(SearchFilters(mimes=values).to_expression())
    assert isinstance(parsed, InOp)
    assert [element.value for element in parsed.values.elements] == values
