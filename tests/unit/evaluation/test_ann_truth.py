"""The streaming oracle against brute force, and grading with ties, duplicates and short results."""

import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_core.errors import FingerprintMismatchError
from rag_core.evaluation import ann_truth
from rag_core.evaluation.ann_search import Answer, Ask, Outcome, Searcher, summary
from rag_core.evaluation.ann_truth import RunningTopK, Truth, find_truth
from rag_core.index.client import IndexClient
from rag_core.tables.store import Store
from tests.ann_support import clustered, slices, store_rows, with_vectors

KEYS = ["handbook__00", "handbook__01", "mail__00"]
COUNT, DIM = 330, 8


@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(0, 60),
    queries=st.integers(1, 5),
    k=st.integers(1, 12),
    cuts=st.lists(st.integers(0, 60), max_size=6),
    steps=st.sampled_from([0, 2, 50]),
)
def test_running_top_k_is_brute_force(seed: int, rows: int, queries: int, k: int, cuts: list[int], steps: int) -> None:
    random = np.random.default_rng(seed)
    scores = random.normal(size=(queries, rows)).astype(np.float32)
    if steps:  # coarse scores have ties
        scores = np.round(scores * steps) / steps
    ids = np.array([f"c{number}" for number in range(rows)], object)
    running = RunningTopK(queries, k)
    bounds = sorted({0, rows, *(min(cut, rows) for cut in cuts)})
    for start, end in itertools.pairwise(bounds):
        running.add(ids[start:end], scores[:, start:end])
    assert running.rows == rows
    expected = -np.sort(-scores, axis=1)[:, :k]
    count = min(k, rows)
    np.testing.assert_array_equal(running.scores[:, :count], expected)
    assert np.isneginf(running.scores[:, count:]).all()
    for query in range(queries):
        names = running.ids[query, :count]
        assert len(set(names)) == count
        np.testing.assert_array_equal([scores[query, int(name[1:])] for name in names], expected[query])


def test_what_is_no_number_is_never_near() -> None:
    running = RunningTopK(1, 2)
    running.add(np.array(["a", "b", "c"], object), np.array([[np.nan, 0.1, 0.2]], np.float32))
    assert running.ids[0].tolist() == ["c", "b"]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, np.ndarray]:
    """330 rows; 40 of them, in all partitions, have the same vector."""
    vectors = clustered(COUNT, DIM, clusters=6)
    vectors[60:100] = vectors[60]
    store = Store(str(tmp_path_factory.mktemp("store")))
    store_rows(store, with_vectors(vectors, KEYS), rows_in_file=50)
    return store, vectors


@pytest.mark.slow
@pytest.mark.parametrize("batch_rows", [7, 4_096])
def test_truth_is_brute_force_under_every_scope(
    stored: tuple[Store, np.ndarray], batch_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ann_truth, "_BATCH_ROWS", batch_rows)
    store, vectors = stored
    table = with_vectors(vectors, KEYS)
    embeddings, chunks = slices(store)
    truth = find_truth(embeddings, clustered(4, DIM, seed=9), samples=20, chunks=chunks)
    masks = {
        "all": np.ones(COUNT, bool),
        "1 % of rows": _lowest(table["chunk_id"].to_pylist(), 10),
        "10 % of rows": _lowest(table["chunk_id"].to_pylist(), 33),
        "one source": np.array([key == "mail__00" for key in table["partition_key"].to_pylist()]),
        "one access label": np.array(table["access_label"].to_pylist())
        == _rarest_label(table["access_label"].to_pylist()),
    } | {key: np.array(table["partition_key"].to_pylist()) == key for key in KEYS}
    assert [one.scope.name for one in truth.scopes] == list(masks)
    for one in truth.scopes:
        mask = masks[one.scope.name]
        assert one.rows == mask.sum()
        exact = -np.sort(-(truth.queries[one.asked] @ vectors[mask].T), axis=1)[:, : truth.k]
        np.testing.assert_allclose(one.scores, exact, atol=1e-6)
    kinds = [truth.kinds[number] for number in truth.scopes[0].asked]
    assert (kinds.count("stored"), kinds.count("given")) == (20, 4)


def test_partitions_have_queries_of_their_own(stored: tuple[Store, np.ndarray]) -> None:
    embeddings, _ = slices(stored[0])
    truth = find_truth(embeddings, samples=10, partition_keys=KEYS[:2])
    inside = {one.scope.name: one for one in truth.scopes if one.scope.kind == "partition"}
    assert sorted(inside) == KEYS[:2]
    for one in inside.values():
        assert len(one.asked) == 5
        assert np.allclose(one.scores[:, 0], 1.0, atol=1e-6)  # its own vector is there


def test_metric_decides_what_is_near(tmp_path_factory: pytest.TempPathFactory) -> None:
    vectors = clustered(40, DIM)
    vectors[3] *= 100
    store = Store(str(tmp_path_factory.mktemp("store")))
    store_rows(store, with_vectors(vectors, KEYS))
    embeddings, _ = slices(store)
    assert find_truth(embeddings, samples=40).scopes[0].scores.max() == pytest.approx(1.0, abs=1e-5)
    assert find_truth(embeddings, samples=40, metric="IP").scopes[0].scores.max() > 100


def test_vectors_that_cannot_be_asked_are_counted(tmp_path_factory: pytest.TempPathFactory) -> None:
    vectors = clustered(40, DIM)
    vectors[3], vectors[4, 2] = 0, np.nan
    store = Store(str(tmp_path_factory.mktemp("store")))
    store_rows(store, with_vectors(vectors, KEYS))
    truth = find_truth(slices(store)[0], samples=40)
    assert (truth.unusable, len(truth.queries)) == (2, 38)
    assert np.isfinite(truth.scopes[0].scores).all()


def test_empty_table_has_nothing_to_ask(tmp_path_factory: pytest.TempPathFactory) -> None:
    embeddings, chunks = slices(Store(str(tmp_path_factory.mktemp("store"))))
    truth = find_truth(embeddings, samples=40, chunks=chunks)
    assert [(one.scope.name, len(one.asked)) for one in truth.scopes] == [("all", 0)]


def test_questions_of_another_model_are_refused(stored: tuple[Store, np.ndarray]) -> None:
    with pytest.raises(FingerprintMismatchError, match=r"dimension 5.*8"):
        find_truth(slices(stored[0])[0], clustered(2, 5), samples=10)


@pytest.mark.slow
def test_any_row_with_an_equal_vector_is_right(stored: tuple[Store, np.ndarray]) -> None:
    store, vectors = stored
    table = with_vectors(vectors, KEYS)
    truth = find_truth(slices(store)[0], vectors[60:61], samples=1)
    same = table["chunk_id"].to_pylist()[60:100]
    far = table["chunk_id"].to_pylist()[int(np.argmin(vectors @ vectors[60]))]
    for hits in (same[:10], same[-10:], same[15:25]):
        assert grade(truth, "all", hits).found == 10
    assert grade(truth, "all", [*same[:9], far]).found == 9
    assert grade(truth, "all", [*same[:9], "not in the table"]).found == 9


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_grade_is_the_share_of_hits_as_near_as_the_tenth(stored: tuple[Store, np.ndarray], data: st.DataObject) -> None:
    store, vectors = stored
    names = with_vectors(vectors, KEYS)["chunk_id"].to_pylist()
    asked = data.draw(st.integers(0, COUNT - 1))
    truth = find_truth(slices(store)[0], vectors[asked : asked + 1], samples=1)
    scores = vectors @ vectors[asked]
    near = np.argsort(-scores)[:60].tolist()
    hits = data.draw(st.lists(st.sampled_from(near), unique=True, max_size=10))
    right = sum(scores[hit] >= np.sort(scores)[-10] - 1e-5 for hit in hits)
    outcome = grade(truth, "all", [names[hit] for hit in hits])
    assert (outcome.found, outcome.expected, outcome.is_short) == (right, 10, len(hits) < 10)


def test_repeated_hits_are_wrong_and_short_results_are_counted(stored: tuple[Store, np.ndarray]) -> None:
    store, vectors = stored
    truth = find_truth(slices(store)[0], vectors[:1], samples=1)
    right = list(truth.scopes[0].ids[-1])
    repeated = grade(truth, "all", [*right[:8], right[0], right[1]])
    assert (repeated.found, repeated.duplicates, repeated.is_short) == (8, 2, False)
    short = grade(truth, "all", right[:4])
    assert (short.found, short.duplicates, short.is_short) == (4, 0, True)
    both = summary([repeated, short], rows=COUNT)
    assert (both.recall, both.queries, both.short_results, both.duplicates) == (pytest.approx(0.6), 2, 1, 2)


def test_hit_outside_the_filter_is_wrong(stored: tuple[Store, np.ndarray]) -> None:
    store, vectors = stored
    table = with_vectors(vectors, KEYS)
    truth = find_truth(slices(store)[0], vectors[60:61], samples=1)
    inside = next(one for one in truth.scopes if one.scope.name == "one source")
    foreign = next(
        name
        for name, key in zip(table["chunk_id"].to_pylist(), table["partition_key"].to_pylist(), strict=True)
        if key != "mail__00" and name in table["chunk_id"].to_pylist()[60:100]
    )
    right = list(inside.ids[-1])
    assert grade(truth, "one source", right).found == 10
    assert grade(truth, "one source", [foreign, *right[1:]]).found == 9


def grade(truth: Truth, scope: str, hits: Sequence[str]) -> Outcome:
    """Grade hits for the last query, as if a server had returned them."""
    client = cast(IndexClient, SimpleNamespace(partitions=lambda _: []))
    asked = next(one for one in truth.scopes if one.scope.name == scope)
    answer = Answer(Ask(asked, len(asked.asked) - 1), tuple(hits), 1.0)
    return Searcher(client, "c", truth).grade({"one": [answer]})["one"][0]


def _lowest(names: list[str], count: int) -> np.ndarray:
    limit = sorted(names)[count]
    return np.array([name < limit for name in names])


def _rarest_label(labels: list[str]) -> str:
    return min(sorted(set(labels)), key=labels.count)
