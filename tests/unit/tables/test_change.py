"""The store: what is committed is exactly the difference, whatever the order of changes, and never half of it."""

from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag_core.errors import PermanentError, TransientError
from rag_core.tables.change import CommitResult, TableChange, commit, stage
from rag_core.tables.delta import TableSlice, lanes_of, row_schema
from rag_core.tables.store import Store

KEYS = ("a__00", "a__01")
LANE = "lane-a"


def rows(items: dict[str, tuple[str, int]]) -> list[pa.RecordBatch]:
    """Build embeddings rows: doc id -> (partition key, payload), two chunks a document."""
    records = [
        {
            "partition_key": key,
            "chunk_id": f"{doc}-{n}",
            "doc_id": doc,
            "text_hash": str(payload),
            "model_fingerprint": "m",
            "vector": [float(payload), 0.0],
        }
        for doc, (key, payload) in items.items()
        for n in range(2)
    ]
    return [pa.RecordBatch.from_pylist(records, schema=row_schema("embeddings"))] if records else []


def apply(store: Store, items: dict[str, tuple[str, int]], replaced: set[str]) -> CommitResult:
    base = TableSlice.newest(store, "embeddings", KEYS, lane=LANE)
    change = TableChange(
        base, "doc_id", files=stage(store, "embeddings", rows(items), LANE), replaced=tuple(sorted(replaced))
    )
    return commit(change, run_id="run-1")


def content(store: Store) -> set[tuple[str, str, str]]:
    table = TableSlice.newest(store, "embeddings").read(["partition_key", "chunk_id", "text_hash"])
    listed = [tuple(row.values()) for row in table.to_pylist()]
    assert len(listed) == len(set(listed)), "rows were written twice"
    return set(listed)


DOCS = st.dictionaries(st.sampled_from("uvwxyz'"), st.integers(0, 3), max_size=5)


@pytest.mark.slow
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(states=st.lists(DOCS, min_size=1, max_size=4))
def test_table_follows_any_sequence_of_states(tmp_path_factory: pytest.TempPathFactory, states: list) -> None:
    store = Store(str(tmp_path_factory.mktemp("store")))
    seen: dict[str, int] = {}
    for state in states:
        changed = {doc for doc in state if seen.get(doc) != state[doc]}
        gone = set(seen) - set(state)
        items = {doc: (KEYS[ord(doc) % 2], state[doc]) for doc in changed}
        result = apply(store, items, (changed & set(seen)) | gone)
        assert result.committed == bool(changed or gone)
        expected = {
            (KEYS[ord(doc) % 2], f"{doc}-{n}", str(payload)) for doc, payload in state.items() for n in range(2)
        }
        assert content(store) == expected
        seen = dict(state)


def test_empty_change_commits_nothing(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    before = TableSlice.newest(store, "embeddings").version
    assert not apply(store, {}, set()).committed
    assert TableSlice.newest(store, "embeddings").version == before


def test_two_writers_of_one_partition_conflict(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    base = TableSlice.newest(store, "embeddings", KEYS[:1], lane=LANE)
    first, second = (
        TableChange(base, "doc_id", files=stage(store, "embeddings", rows({doc: (KEYS[0], 1)}), LANE)) for doc in "uv"
    )
    commit(first, run_id="1")
    with pytest.raises(TransientError, match="a__00"):
        commit(second, run_id="2")
    assert {chunk for _, chunk, _ in content(store)} == {"u-0", "u-1"}
    on_disk = list(tmp_path.glob("tables/embeddings/lane=lane-a/partition_key=a__00/*.parquet"))
    assert len(on_disk) == 1, "the refused change leaves no file behind"


def test_writers_of_different_partitions_do_not_conflict(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    changes = [
        TableChange(
            TableSlice.newest(store, "embeddings", (key,), lane=LANE),
            "doc_id",
            files=stage(store, "embeddings", rows({doc: (key, 1)}), LANE),
        )
        for key, doc in zip(KEYS, "uv", strict=True)
    ]
    for change in changes:
        assert commit(change, run_id="r").committed
    assert len(content(store)) == 4


def test_commit_carries_run_and_metadata(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    base = TableSlice.newest(store, "embeddings", KEYS, lane=LANE)
    change = TableChange(
        base,
        "doc_id",
        files=stage(store, "embeddings", rows({"u": (KEYS[0], 1)}), LANE),
        metadata={"consumed": "chunks@3"},
    )
    commit(change, run_id="run-7")
    newest = TableSlice.newest(store, "embeddings").open().history(1)[0]
    assert (newest["run_id"], newest["consumed"]) == ("run-7", "chunks@3")


def test_failed_staging_leaves_no_file(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    TableSlice.newest(store, "embeddings")

    def broken() -> object:
        yield from rows({"u": (KEYS[0], 1)})
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        stage(store, "embeddings", broken(), LANE)
    assert not list(tmp_path.glob("tables/embeddings/lane=lane-a/partition_key=*/*.parquet"))


def test_old_version_stays_readable(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    apply(store, {"u": (KEYS[0], 1)}, set())
    old = TableSlice.newest(store, "embeddings")
    apply(store, {"u": (KEYS[0], 2)}, {"u"})
    assert set(old.read(["text_hash"])["text_hash"].to_pylist()) == {"1"}


def test_lanes_of_a_partition_are_written_and_replaced_apart(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for lane in (LANE, "lane-b"):
        base = TableSlice.newest(store, "embeddings", KEYS, lane=lane)
        files = stage(store, "embeddings", rows({"u": (KEYS[0], 1), "v": (KEYS[0], 1)}), lane)
        commit(TableChange(base, "doc_id", files=files), run_id="r")
    base = TableSlice.newest(store, "embeddings", KEYS, lane="lane-b")
    files = stage(store, "embeddings", rows({"u": (KEYS[0], 2)}), "lane-b")
    commit(TableChange(base, "doc_id", files=files, replaced=("u", "v")), run_id="r")
    texts = {
        lane: sorted(TableSlice.newest(store, "embeddings", lane=lane).read(["text_hash"])["text_hash"].to_pylist())
        for lane in (LANE, "lane-b")
    }
    assert texts == {LANE: ["1"] * 4, "lane-b": ["2"] * 2}
    assert lanes_of(store, "embeddings") == [LANE, "lane-b"]


def test_a_change_of_a_table_with_lanes_names_its_lane(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with pytest.raises(ValueError, match="lane"):
        stage(store, "embeddings", [])
    change = TableChange(TableSlice.newest(store, "embeddings", KEYS), "doc_id", replaced=("u",))
    with pytest.raises(ValueError, match="lane"):
        commit(change, run_id="r")


def test_table_of_an_earlier_version_is_refused_with_what_to_do(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    DeltaTable.create(store.table_uri("chunks"), schema=row_schema("chunks"), partition_by=["partition_key"])
    with pytest.raises(PermanentError, match=r"chunks .* no column lane.*move the folder"):
        TableSlice.newest(store, "chunks")
