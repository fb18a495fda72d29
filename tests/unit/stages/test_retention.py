"""Which collections and lanes stay."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_core.generation import Generation
from rag_core.stages.publication import Generations
from rag_core.stages.retention import kept, retained
from rag_core.tables.store import Store
from tests.unit.stages.generation_rows import generation_of, publish_row


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> list[Generation]:
    """Four generations: two models, of each one with another index type."""
    folder = tmp_path_factory.mktemp("family")
    return [
        generation_of(folder, embedding={"query_prefix": prefix}, index={"index_type": index})
        for prefix in ("", "q: ")
        for index in ("FLAT", "HNSW")
    ]


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(history=st.lists(st.integers(0, 3), min_size=1, max_size=6), keep=st.integers(0, 3), target=st.integers(0, 3))
def test_the_newest_published_and_the_target_stay(
    family: list[Generation], tmp_path_factory: pytest.TempPathFactory, history: list[int], keep: int, target: int
) -> None:
    store = Store(str(tmp_path_factory.mktemp("store")))
    for number, member in enumerate(history):
        publish_row(store, family[member].collection, family[member].settings, number=number)
    newest_first = [family[member] for member in dict.fromkeys(reversed(history))]
    published = {one.collection for one in newest_first[: keep + 1]}
    without, stays = kept(store, None, keep=keep), kept(store, family[target], keep=keep)
    assert without.collections == published
    assert stays.collections == published | {family[target].collection}
    by_name = {one.collection: one for one in family}
    assert stays.lanes("index_partitions") == stays.collections
    assert stays.lanes("embeddings") == {by_name[name].embedding_lane for name in stays.collections}
    for table in ("chunks", "term_statistics"):
        assert stays.lanes(table) == {by_name[name].chunk_lane for name in stays.collections}
    served = None if newest_first[0] is family[target] else newest_first[0]
    left = retained(store, Generations(family[target], served=served), keep=keep)
    assert left == sorted(published - {newest_first[0].collection, family[target].collection})


def test_nothing_published_keeps_the_target_only(family: list[Generation], tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    assert kept(store, family[0], keep=1).collections == {family[0].collection}
    assert kept(store, None, keep=1).collections == frozenset()
