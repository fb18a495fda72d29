"""What a collection does not show yet, and what was published."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag_core.generation import configured
from rag_core.stages.publication import (
    generations,
    held_by_rollback,
    incomplete_partitions,
    latest_manifest,
    rolled_back_verdict,
)
from rag_core.tables.store import Store
from tests.unit.stages.generation_rows import (
    KEY,
    chunks,
    config_of,
    documents,
    generation_of,
    ledger,
    publish_row,
    put,
)

_STATES = {
    "shown": 0, "not cut": 1, "cut": 1, "stale in the index": 1, "stale chunks": 1, "gone, cut and indexed": 1,
    "gone, indexed": 1, "blank": 0, "rejected": 0,
}  # fmt: skip


@pytest.mark.slow
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(states=st.lists(st.sampled_from(sorted(_STATES)), max_size=8))
def test_every_document_that_is_not_shown_as_it_is_counts(
    states: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("store")
    generation = generation_of(folder)
    store = Store.of(generation.config.store)
    for number, state in enumerate(states):
        _put_document(store, generation, f"doc{number}", state)
    expected = sum(_STATES[state] for state in states)
    assert incomplete_partitions(store, generation) == ({KEY: expected} if expected else {})


def _put_document(store, generation, name: str, state: str) -> None:  # type: ignore[no-untyped-def]
    if not state.startswith("gone"):
        row = documents([name], text=" \n" if state == "blank" else "text")[0]
        put(store, "documents", [row | ({"status": "rejected"} if state == "rejected" else {})])
    if state in ("shown", "cut", "stale in the index", "stale chunks", "gone, cut and indexed"):
        edition = "0" if state == "stale chunks" else "1"
        put(store, "chunks", chunks([name], edition=edition), generation.chunk_lane)
    if state in ("shown", "stale in the index", "stale chunks", "gone, cut and indexed", "gone, indexed"):
        edition = "0" if state in ("stale in the index", "stale chunks") else "1"
        put(store, "index_partitions", ledger(generation, [name], edition=edition), generation.collection)


def test_rows_of_other_lanes_and_models_do_not_count(tmp_path: Path) -> None:
    generation, other = generation_of(tmp_path), generation_of(tmp_path, embedding={"query_prefix": "q: "})
    store = Store.of(generation.config.store)
    put(store, "documents", documents(["doc"]))
    put(store, "chunks", chunks(["doc"]), "another lane")
    put(store, "index_partitions", ledger(generation, ["doc"]), "another collection")
    assert incomplete_partitions(store, generation) == {KEY: 1}
    put(store, "chunks", chunks(["doc"]), generation.chunk_lane)
    put(store, "index_partitions", ledger(other, ["doc"]), generation.collection)
    assert incomplete_partitions(store, generation) == {KEY: 1}


def test_served_generation_comes_from_the_newest_manifest(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    store, target = Store.of(config.store), configured(config)
    assert latest_manifest(store) is None
    assert generations(store, config).active == (target,)
    other = generation_of(tmp_path, index={"index_type": "HNSW"})
    publish_row(store, target.collection, target.settings, number=1)
    publish_row(store, other.collection, other.settings, number=2)
    known = generations(store, config)
    assert [one.collection for one in known.active] == [other.collection, target.collection]
    publish_row(store, target.collection, target.settings, number=3)
    assert generations(store, config).served is None


def test_served_model_that_is_gone_is_said_and_not_served_to(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    store, target = Store.of(config.store), configured(config)
    lost = target.settings.replace('"model": "all-MiniLM-L6-v2"', '"model": "/gone/model"')
    publish_row(store, "rag_000000000000", lost, number=1)
    known = generations(store, config)
    assert known.active == (target,)
    assert "rag_000000000000 is served and takes no changes" in known.lost


def test_only_what_was_rolled_back_from_is_held(tmp_path: Path) -> None:
    one, other = generation_of(tmp_path), generation_of(tmp_path, index={"index_type": "HNSW"})
    store = Store.of(one.config.store)
    assert held_by_rollback(None, one) == ""
    last = publish_row(store, one.collection, one.settings, number=1, verdict=rolled_back_verdict(other.collection))
    assert latest_manifest(store) == last
    assert last.rolled_back_from == other.collection
    assert held_by_rollback(last, one) == ""
    assert "rag publish --again" in held_by_rollback(last, other)
