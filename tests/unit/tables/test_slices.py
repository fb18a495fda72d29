"""Reading slices: only the files of the slice are opened, and each partition's first rows come in one pass."""

from pathlib import Path

import pytest

from rag_core.stages.common import contents
from rag_core.tables.delta import TableSlice
from rag_core.tables.store import Store
from tests.unit.stages.generation_rows import put


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path))
    for lane in ("a", "b"):
        for number in range(4):
            rows = [{"chunk_id": f"{lane}{number}-{row}", "partition_key": f"notes__{number:02d}"} for row in range(3)]
            put(store, "chunks", rows[:2], lane)
            put(store, "chunks", rows[2:], lane)
    return store


@pytest.mark.parametrize(
    ("keys", "lane", "files"),
    [(None, None, 16), (None, "a", 8), (["notes__01"], None, 4), (["notes__01", "notes__03"], "b", 4), (["x"], "a", 0),
     ([], "a", 0)],
)  # fmt: skip
def test_only_the_files_of_a_slice_are_opened(
    store: Store, keys: list[str] | None, lane: str | None, files: int
) -> None:
    current = TableSlice.newest(store, "chunks", keys, lane=lane)
    assert len(list(current.dataset().get_fragments())) == files
    expected = {
        f"{one}{number}-{row}"
        for one in ("a", "b")
        for number in range(4)
        for row in range(3)
        if (keys is None or f"notes__{number:02d}" in keys) and lane in (None, one)
    }
    assert set(current.read(["chunk_id"])["chunk_id"].to_pylist()) == expected
    assert current.count() == len(expected)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_first_rows_of_each_partition(store: Store, rows: int) -> None:
    current = TableSlice.newest(store, "chunks", ["notes__00", "notes__02", "notes__99"], lane="b")
    found = current.heads(rows, ["chunk_id", "heading_path"])
    assert list(found) == ["notes__00", "notes__02", "notes__99"]
    assert found["notes__99"].num_rows == 0
    for number in (0, 2):
        listed = found[f"notes__{number:02d}"]
        assert listed.column_names == ["chunk_id", "heading_path"]
        ids = listed["chunk_id"].to_pylist()
        assert len(ids) == len(set(ids)) == min(rows, 3)
        assert set(ids) <= {f"b{number}-{row}" for row in range(3)}


def test_contents_do_not_depend_on_how_often_rows_were_written(store: Store, tmp_path: Path) -> None:
    other = Store(str(tmp_path / "other"))
    keys = [f"notes__{number:02d}" for number in range(5)]
    rows = [{"chunk_id": f"a{number}-{row}", "partition_key": keys[number]} for number in range(4) for row in (2, 0, 1)]
    put(other, "chunks", rows, "a")
    found = [contents(TableSlice.newest(one, "chunks", keys, lane="a")) for one in (store, other)]
    assert found[0] == found[1]
    assert [found[0][key].rows for key in keys] == [3, 3, 3, 3, 0]
    assert len({found[0][key].digest for key in keys}) == 5
