"""Versions of sources: another one exactly after a change of one of the source's partitions in the lane."""

import tempfile

import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_core.tables.delta import ensure_table
from rag_core.tables.partition_versions import PartitionVersions, source_versions
from rag_core.tables.store import Store
from tests.unit.stages.generation_rows import put

TABLE = "index_partitions"
LANES = ("blue", "green")
SOURCES = ("notes", "notes_2", "wiki__old")
PLACES = st.tuples(st.sampled_from(LANES), st.sampled_from(SOURCES), st.integers(0, 1))


def change(store: Store, kind: str, lane: str, key: str) -> bool:
    """Add rows to a partition or take all of them out; return whether there was anything to change."""
    if kind == "add":
        put(store, TABLE, [{"chunk_id": "c", "partition_key": key}], lane)
        return True
    table: DeltaTable = ensure_table(store, TABLE)
    return bool(table.delete(f"collection = '{lane}' AND partition_key = '{key}'")["num_removed_files"])


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["add", "add", "remove"]), PLACES), min_size=1, max_size=6))
def test_a_version_changes_exactly_with_its_source(changes: list[tuple[str, tuple[str, str, int]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        kept = PartitionVersions(store)
        before = {lane: kept.of(lane) for lane in LANES}
        for kind, (lane, source, bucket) in changes:
            changed = change(store, kind, lane, f"{source}__{bucket:02d}")
            after = {one: kept.of(one) for one in LANES}
            # Another process, which has read nothing before, finds the same.
            assert after == {one: source_versions(store, TABLE, one) for one in LANES}
            differing = {
                (one, name)
                for one in LANES
                for name in SOURCES
                if before[one].get(name) != after[one].get(name)
            }  # fmt: skip
            assert differing == ({(lane, source)} if changed else set())
            before = after


def test_rows_that_come_back_have_another_version(tmp_path: str) -> None:
    store = Store(str(tmp_path))
    put(store, TABLE, [{"chunk_id": "c", "partition_key": "notes__00"}], "blue")
    first = source_versions(store, TABLE, "blue")
    ensure_table(store, TABLE).delete("collection = 'blue'")
    put(store, TABLE, [{"chunk_id": "c", "partition_key": "notes__00"}], "blue")
    assert source_versions(store, TABLE, "blue") != first


def test_nothing_is_indexed_yet(tmp_path: str) -> None:
    store = Store(str(tmp_path))
    assert PartitionVersions(store).of("blue") == {} == source_versions(store, TABLE, "blue")
