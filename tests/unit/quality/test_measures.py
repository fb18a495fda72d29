"""Conditions, patterns of personal data, and measures of vectors."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_core.quality import conditions, patterns, vectors

FRAME = pd.DataFrame(
    {
        "status": ["ok", "rejected", None],
        "page": [1.0, None, 3.0],
        "text.length": [10, 0, 30],
        "flag": [True, False, True],
    }
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('status == "ok"', [True, False, False]),
        ('status != "ok"', [False, True, True]),
        ('status in ["ok", "rejected"]', [True, True, False]),
        ("status is None", [False, False, True]),
        ("page is not None", [True, False, True]),
        ("page is None or page >= 2", [False, True, True]),
        ("0 < text.length <= 10", [True, False, False]),
        ("not (text.length > 5)", [False, True, False]),
        ("text.length - page * 2 > 8 - 1", [True, False, True]),
        ("flag", [True, False, True]),
        ("not flag and text.length == 0", [False, True, False]),
    ],
)
def test_condition_means_what_python_means(text: str, expected: list[bool]) -> None:
    parsed = conditions.parse(text)
    assert FRAME.eval(parsed.query).tolist() == expected
    assert len(FRAME.query(parsed.query)) == sum(expected)
    assert parsed.columns <= set(FRAME.columns)


@pytest.mark.parametrize(
    "text", ["", "status =", "len(status) > 1", "status.str.len() > 1", "1 < 2", "lambda: 1", "status is 1", "`x` > 1"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a condition such as"):
        conditions.parse(text)


@pytest.mark.slow
@given(st.integers(), st.integers(), st.sampled_from(["<", "<=", "==", "!=", ">", ">="]))
def test_comparisons_agree_with_python(left: int, right: int, operator: str) -> None:
    left, right = left % 1000, right % 1000
    frame = pd.DataFrame({"a": [left]})
    found = bool(frame.eval(conditions.parse(f"a {operator} {right}").query).iloc[0])
    assert found == eval(f"{left} {operator} {right}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to jane.roe+x@mail.example.org now", "email"),
        ("call +49 30 1234567", "phone"),
        ("call (415) 555-0100", "phone"),
        ("call 415-555-0100", "phone"),
        ("card 4111 1111 1111 1111", "credit_card"),
        ("IBAN DE89 3704 0044 0532 0130 00.", "iban"),
        ("SSN 536-22-1234", "us_ssn"),
        ("jane@example.org, 415-555-0100", "email,phone"),
        ("user@host", None),
        ("card 4111 1111 1111 1112", None),
        ("IBAN DE88 3704 0044 0532 0130 00", None),
        ("000-22-1234 and 666-22-1234", None),
        ("range 1939-1945, version 10.2.3.4, ISBN 978-3-16-148410-0", None),
        ("reynolds number 1 000 000 at mach 2.5, 0.123456789012345", None),
        ("+ 12.5 +3.75 percent", None),
    ],
)
def test_personal_data(text: str, expected: str | None) -> None:
    assert patterns.find(text) == expected


def test_null_text_holds_nothing() -> None:
    assert patterns.find_all(pa.array([None, "a@b.example", ""])) == [None, "email", None]


@given(st.text(alphabet="0123456789", min_size=12, max_size=18))
def test_luhn_finds_one_wrong_digit(digits: str) -> None:
    valid = next(digits + last for last in "0123456789" if patterns.luhn(digits + last))
    wrong = str((int(valid[0]) + 1) % 10) + valid[1:]
    assert not patterns.luhn(wrong)


vectors_of_any_length = st.lists(
    st.none() | st.lists(st.none() | st.floats(-10, 10, width=32) | st.just(float("nan")), max_size=5), max_size=12
)


@given(vectors_of_any_length)
def test_measures_agree_with_one_vector_at_a_time(rows: list[list[float | None] | None]) -> None:
    found = vectors.measure(pa.array(rows, pa.list_(pa.float32())))
    for number, row in enumerate(rows):
        if row is None:
            assert np.isnan(found["dim"][number])
            assert np.isnan(found["norm"][number])
            continue
        values = np.array([np.nan if value is None else value for value in row], np.float32)
        assert found["dim"][number] == len(row)
        assert found["nan_count"][number] == np.isnan(values).sum()
        if np.isnan(values).any():
            assert np.isnan(found["norm"][number])
        else:
            assert found["norm"][number] == pytest.approx(float(np.linalg.norm(values.astype(np.float64))), rel=1e-6)


@given(st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=8))
def test_hash_tells_vectors_apart_and_a_slice_measures_the_same(row: list[float]) -> None:
    other = [row[0] + 0.5, *row[1:]]
    found = vectors.measure(pa.array([row, other, row], pa.list_(pa.float32())))
    assert found["hash"][0] == found["hash"][2] != found["hash"][1]
    sliced = vectors.measure(pa.array([[9.0], row, other], pa.list_(pa.float32())).slice(1))
    assert sliced["hash"].tolist() == found["hash"][:2].tolist()
