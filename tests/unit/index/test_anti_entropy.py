"""The comparison of a partition with its ledger, as a pure function."""

from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_core.config import IndexConfig
from rag_core.index.anti_entropy import PartitionState
from rag_core.index.comparison import KINDS, Difference, compare
from rag_core.index.ledger import IDENTITY
from rag_core.index.self_search import sample, thorough_params

Row = tuple[str, str, str, str]
ROW = st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("12"), st.sampled_from("12"), st.sampled_from("12"))


def table(*rows: Row) -> pa.Table:
    schema = pa.schema([pa.field(name, pa.string()) for name in IDENTITY])
    return pa.Table.from_pylist([dict(zip(IDENTITY, row, strict=True)) for row in rows], schema)


def row(chunk_id: str, row_hash: str = "r", text_hash: str = "t", model: str = "m") -> Row:
    return chunk_id, row_hash, text_hash, model


def test_nothing_differs() -> None:
    rows = table(row("a"), row("b"))
    assert compare(rows, rows.take([1, 0])).is_empty
    assert compare(table(), table()).is_empty


def test_each_kind() -> None:
    ledger = table(*map(row, "abcdef"))
    held = table(
        row("a"), row("c", row_hash="x"), row("d", text_hash="x"), row("e", model="x"), row("f"), row("f"), row("z")
    )
    found = compare(ledger, held)
    assert found == Difference(missing=("b",), orphaned=("z",), duplicated=("f",), stale=("c", "d", "e"))
    assert [found.ids(kind) for kind in KINDS] == [("b",), ("z",), ("f",), ("c", "d", "e"), ()]


def test_one_side_is_empty() -> None:
    assert compare(table(row("a")), table()) == Difference(missing=("a",))
    assert compare(table(), table(row("a"), row("a"))) == Difference(orphaned=("a",))


def test_duplicates_that_a_listing_does_not_show() -> None:
    ledger = table(row("a"), row("b"))
    held = table(row("a", row_hash="x"), row("b"), row("z"))
    # A duplicate that differs is a duplicate: mending it takes care of both.
    assert compare(ledger, held, doubled=["a", "z"]) == Difference(orphaned=("z",), duplicated=("a",))


@given(st.lists(ROW, unique_by=lambda item: item[0]), st.lists(ROW))
def test_against_plain_python(ledger: list[Row], held: list[Row]) -> None:
    expected = {item[0]: item for item in ledger}
    times = Counter(item[0] for item in held)
    found = compare(table(*ledger), table(*held))
    duplicated = {i for i, count in times.items() if count > 1 and i in expected}
    assert set(found.missing) == expected.keys() - times.keys()
    assert set(found.orphaned) == times.keys() - expected.keys()
    assert set(found.duplicated) == duplicated
    assert set(found.stale) == {i[0] for i in held if i[0] in expected and expected[i[0]] != i} - duplicated
    every = [chunk_id for kind in KINDS for chunk_id in found.ids(kind)]
    assert len(every) == len(set(every))


@pytest.mark.slow
@given(st.sets(st.text(max_size=3), max_size=40), st.integers(0, 50), st.integers(0, 3))
def test_sample_does_not_depend_on_order(ids: set[str], size: int, seed: int) -> None:
    drawn = sample(list(ids), size, seed)
    assert drawn == sample(sorted(ids, reverse=True), size, seed)
    assert drawn == sorted(set(drawn) & ids)
    assert len(drawn) == min(size, len(ids))


def test_another_seed_draws_others() -> None:
    ids = [str(number) for number in range(1_000)]
    assert sample(ids, 10, 0) != sample(ids, 10, 1)


@pytest.mark.parametrize(
    ("settings", "lite", "expected"),
    [
        ({"index_type": "FLAT"}, True, {}),
        ({"index_type": "HNSW_SQ"}, True, {"ef": 400}),
        ({"index_type": "AUTOINDEX"}, True, {"ef": 400}),
        ({"index_type": "AUTOINDEX"}, False, {"level": 10}),
        ({"index_type": "IVF_FLAT", "build_params": {"nlist": 16}}, True, {"nprobe": 16}),
        ({"index_type": "IVF_SQ8"}, False, {"nprobe": 128}),
    ],
)
def test_thorough_search(settings: dict[str, object], lite: bool, expected: dict[str, int]) -> None:
    assert thorough_params(IndexConfig(**settings), 100, lite=lite) == expected  # type: ignore[arg-type]


def test_a_state_is_clean_only_if_the_counts_agree() -> None:
    none = dict.fromkeys(KINDS, 0)
    clean = PartitionState("handbook__00", "c", 5, 5, 5, none, {})
    assert clean.is_clean
    assert clean.to_dict()["is_clean"] is True
    assert not PartitionState("handbook__00", "c", 5, 6, 5, none, {}).is_clean
    assert not PartitionState("handbook__00", "c", 5, 5, 5, {**none, "stale": 1}, {}).is_clean
    assert not PartitionState("gone__00", "c", 0, 0, 0, none, {}, is_known=False).is_clean
