"""The vector cache on real Delta tables in a temporary folder."""

import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_core import ids, schemas
from rag_core.embedding.cache import VectorCache
from rag_core.errors import PermanentError, TransientError
from rag_core.tables.store import Store

DIM = 8


def hashes_of(*names: object) -> list[str]:
    return [ids.text_hash(str(name)) for name in names]


def unit(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def test_before_the_first_append_everything_is_missing(store: Store) -> None:
    cache, asked = VectorCache(store), hashes_of(1, 2, 1)
    assert cache.missing("fp", asked) == asked[:2]
    found, vectors = cache.lookup("fp", asked)
    assert (found, vectors.shape) == ([], (0, 0))
    assert cache.compact() == 0
    assert cache.append("fp", [], np.empty((0, DIM), np.float32)) == -1


def test_what_was_appended_comes_back_in_the_order_asked(store: Store) -> None:
    names, vectors = hashes_of(*range(100)), unit(100)
    VectorCache(store).append("fp", names, vectors, commit_metadata={"rag.run_id": "r1"})
    cache = VectorCache(store)
    asked = pa.array([names[7], ids.text_hash("none"), names[99], names[7], names[0]])
    found, got = cache.lookup("fp", asked)
    assert found == [names[7], names[99], names[0]]
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, vectors[[7, 99, 0]])
    assert cache.missing("fp", asked) == [ids.text_hash("none")]


def test_one_append_is_one_commit_with_its_metadata(store: Store) -> None:
    cache = VectorCache(store)
    first = cache.append("fp", hashes_of(*range(50)), unit(50), commit_metadata={"rag.run_id": "r1"})
    assert cache.append("fp", hashes_of("x"), unit(1)) == first + 1
    table = DeltaTable(store.table_uri("vectors"))
    commit = next(entry for entry in table.history() if entry["version"] == first)
    assert (commit["rag.run_id"], commit["rag.model_fingerprint"]) == ("r1", "fp")
    assert table.metadata().partition_columns == ["model_fingerprint", "shard"]
    assert [f.name for f in table.schema().fields] == schemas.VECTORS.names


def test_models_do_not_see_each_other(store: Store) -> None:
    cache, names = VectorCache(store), hashes_of(1, 2)
    cache.append("a", names[:1], unit(1))
    cache.append("b", names[1:], unit(1))
    assert cache.missing("a", names) == names[1:]
    assert cache.missing("b", names) == names[:1]


def test_another_process_s_append_is_seen(store: Store) -> None:
    reader, writer, names = VectorCache(store), VectorCache(store), hashes_of(1, 2)
    writer.append("fp", names[:1], unit(1))
    assert reader.missing("fp", names) == names[1:]
    writer.append("fp", names[1:], unit(1, seed=1))
    assert reader.missing("fp", names) == []


def test_duplicates_are_harmless(store: Store) -> None:
    cache, names, vectors = VectorCache(store), hashes_of(1, 2), unit(2)
    cache.append("fp", names, vectors)
    cache.append("fp", names, vectors)
    found, got = cache.lookup("fp", names)
    assert found == names
    np.testing.assert_array_equal(got, vectors)


@pytest.mark.slow
def test_concurrent_first_appends_lose_nothing(store: Store) -> None:
    names, vectors, errors = hashes_of(*range(80)), unit(80), []

    def work(part: int) -> None:
        try:
            for start in range(part * 20, part * 20 + 20, 10):
                VectorCache(store).append("fp", names[start : start + 10], vectors[start : start + 10])
        except TransientError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    found, got = VectorCache(store).lookup("fp", names)
    assert found == names
    np.testing.assert_array_equal(got, vectors)


def test_compaction_keeps_every_vector_and_an_open_reader(store: Store) -> None:
    names, vectors = hashes_of(*range(60)), unit(60)
    reader, writer = VectorCache(store), VectorCache(store)
    for start in range(0, 60, 10):
        writer.append("fp", names[start : start + 10], vectors[start : start + 10])
    assert reader.missing("fp", names) == []
    assert writer.compact() == 0
    assert writer.compact(force=True) > 0
    for cache in (reader, VectorCache(store)):
        np.testing.assert_array_equal(cache.lookup("fp", names)[1], vectors)


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.sets(st.integers(0, 40), max_size=12), min_size=1, max_size=4),
    st.lists(st.integers(0, 60), max_size=30),
)
def test_lookup_and_missing_split_what_is_asked(
    tmp_path_factory: pytest.TempPathFactory, appended: list[set[int]], asked: list[int]
) -> None:
    cache, table = VectorCache(Store(str(tmp_path_factory.mktemp("store")))), unit(61)
    for part in appended:
        cache.append("fp", hashes_of(*part), table[list(part)])
    known, names = set().union(*appended), list(dict.fromkeys(asked))
    found, vectors = cache.lookup("fp", hashes_of(*asked))
    assert found == hashes_of(*[n for n in names if n in known])
    assert cache.missing("fp", hashes_of(*asked)) == hashes_of(*[n for n in names if n not in known])
    if found:
        np.testing.assert_array_equal(vectors, table[[n for n in names if n in known]])


def test_bad_input_is_refused(store: Store) -> None:
    cache = VectorCache(store)
    with pytest.raises(ValueError, match="32 characters"):
        cache.missing("fp", ["short"])
    with pytest.raises(ValueError, match="null"):
        cache.missing("fp", pa.array([None], pa.string()))
    with pytest.raises(ValueError, match="1 hashes but"):
        cache.append("fp", hashes_of(1), unit(2))
    with pytest.raises(ValueError, match="finite"):
        cache.append("fp", hashes_of(1), np.full((1, DIM), np.nan, np.float32))


def test_mixed_dimensions_are_a_permanent_error(store: Store) -> None:
    cache = VectorCache(store)
    cache.append("fp", hashes_of(1), unit(1))
    cache.append("fp", hashes_of(2), unit(1)[:, :4])
    with pytest.raises(PermanentError, match="several dimensions"):
        cache.lookup("fp", hashes_of(1, 2))


def test_an_unreachable_store_is_transient(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TransientError, match="vector cache"):
        VectorCache(Store(str(tmp_path / "file"))).append("fp", hashes_of(1), unit(1))
