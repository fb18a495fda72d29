"""The sample depends on ids only, and is spread over partitions in proportion."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_core.evaluation.sampling import draw, quotas
from rag_core.tables.store import Store
from tests.ann_support import clustered, slices, store_rows, with_vectors

KEYS = ["handbook__00", "handbook__01", "mail__00"]


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 1000), min_size=1, max_size=20), st.integers(0, 500))
def test_quotas_sum_up_and_are_in_proportion(rows: dict[str, int], samples: int) -> None:
    shares = quotas(rows, samples)
    total = sum(rows.values())
    assert sum(shares.values()) == min(samples, total)
    for key, count in rows.items():
        assert shares[key] <= count
        if samples < total:
            assert abs(shares[key] - samples * count / total) < 1


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(str(tmp_path_factory.mktemp("store")))
    store_rows(store, with_vectors(clustered(300, 8), KEYS), rows_in_file=70)
    return store


@pytest.mark.slow
def test_sample_is_stratified_and_the_same_each_time(stored: Store, tmp_path: Path) -> None:
    vectors, _ = slices(stored)
    sample = draw(vectors, 30, per_partition=15, lowest_share=0.1)
    assert sample.rows == dict.fromkeys(KEYS, 100)
    assert len(sample.overall) == len(set(sample.overall)) == 30
    for listed in sample.by_partition.values():
        assert len(set(listed)) == 15
        assert len(set(listed) & set(sample.overall)) == 10
    other = Store(str(tmp_path))  # the same rows in other files and another order
    backwards = with_vectors(clustered(300, 8), KEYS).take(list(range(299, -1, -1)))
    store_rows(other, backwards, rows_in_file=41)
    again = draw(slices(other)[0], 30, per_partition=15, lowest_share=0.1)
    assert (again.overall, again.by_partition) == (sample.overall, sample.by_partition)
    assert again.lowest_ids.equals(sample.lowest_ids)


def test_lowest_ids_are_the_smallest_and_one_more(stored: Store) -> None:
    vectors, _ = slices(stored)
    every = sorted(vectors.read(["chunk_id"])["chunk_id"].to_pylist())
    assert draw(vectors, 5, lowest_share=0.1).lowest_ids.to_pylist() == every[:31]
    assert draw(vectors, 5, lowest_share=0.01, lowest_at_least=10).lowest_ids.to_pylist() == every[:11]
    assert draw(vectors, 5, lowest_share=1.0).lowest_ids.to_pylist() == every


def test_small_table_is_sampled_whole(stored: Store) -> None:
    vectors, _ = slices(stored)
    assert len(draw(vectors.of("mail__00"), 500).overall) == 100
    empty = draw(vectors.of("absent__00"), 10, per_partition=5, lowest_share=0.1)
    assert (empty.overall, dict(empty.rows), len(empty.lowest_ids)) == ((), {}, 0)
