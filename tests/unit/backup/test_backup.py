"""Snapshots: what comes back is what was there, whatever happened before, during and after."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_core.backup.layout import backup_store, blob_path, blobs, read_snapshot, snapshot_names
from rag_core.backup.restoring import check, restore
from rag_core.backup.taking import Taken, give_up_old, take
from rag_core.errors import PermanentError
from rag_core.tables.maintenance import maintain
from rag_core.tables.store import Store

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


class World:
    """A store with the tables `documents` and `chunks`, its backup, and places to restore into."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(str(folder / "store"))
        self.backup = backup_store(self.store, str(folder / "backup"))
        self._clock = count()

    def write(self, table: str, rows: dict[str, int], mode: str = "append") -> None:
        data = pa.table({"partition_key": list(rows), "value": list(rows.values())})
        write_deltalake(self.store.table_uri(table), data, mode=mode, partition_by=["partition_key"])

    def take(self) -> Taken:
        return take(self.store, self.backup, now=NOW + timedelta(seconds=next(self._clock)))

    def restored(self, name: str = "") -> Store:
        target = Store(str(self.folder / f"restored{next(self._clock)}"))
        restore(self.backup, read_snapshot(self.backup, name), target)
        return target

    def blob_of(self, table: str) -> Path:
        entry = next(one for one in read_snapshot(self.backup).tables if one.name == table)
        return Path(self.backup.root) / blob_path(entry.data[0].sha256)


def rows_of(store: Store, table: str) -> list[tuple[str, int]]:
    found = DeltaTable(store.table_uri(table)).to_pyarrow_table()
    return sorted(zip(found["partition_key"].to_pylist(), found["value"].to_pylist(), strict=True))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    made.write("documents", {"a": 1, "b": 2})
    made.write("chunks", {"a": 10})
    yield made


commits = st.lists(
    st.tuples(
        st.sampled_from(["documents", "chunks"]),
        st.dictionaries(st.sampled_from("abc"), st.integers(0, 9), min_size=1),
        st.sampled_from(["append", "overwrite"]),
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.slow
@settings(max_examples=25)
@given(commits)
def test_every_snapshot_brings_back_its_time(
    tmp_path_factory: pytest.TempPathFactory, made: list[tuple[str, dict[str, int], str, bool]]
) -> None:
    world = World(tmp_path_factory.mktemp("world"))
    world.write("documents", {"a": 0})
    expected = {}
    for table, rows, mode, snapshot in made:
        world.write(table, rows, mode)
        if snapshot:
            taken = world.take().snapshot
            expected[taken.name] = {one.name: rows_of(world.store, one.name) for one in taken.tables}
    for name, tables in expected.items():
        restored = world.restored(name)
        assert {table: rows_of(restored, table) for table in tables} == tables


def test_what_the_backup_has_is_not_copied_again(world: World) -> None:
    assert world.take().copied == 5, "three data files and two commits"
    assert world.take().copied == 0
    world.write("chunks", {"c": 3})
    assert world.take().copied == 2, "one data file and one commit"


def test_commits_during_the_copying_are_not_in_it(world: World) -> None:
    before = rows_of(world.store, "documents")
    written = iter([True])

    def meanwhile(what: str, done: int, total: int) -> None:
        if next(written, False):
            world.write("documents", {"z": 26}, "overwrite")

    take(world.store, world.backup, now=NOW, on_progress=meanwhile)
    assert rows_of(world.store, "documents") == [("z", 26)]
    assert rows_of(world.restored(), "documents") == before


@pytest.mark.slow
def test_checkpoints_and_upkeep(world: World) -> None:
    for number in range(12):
        world.write("chunks", {"a": number})
    DeltaTable(world.store.table_uri("chunks")).create_checkpoint()
    world.write("chunks", {"b": 99})
    world.take()
    wanted = rows_of(world.store, "chunks")
    restored = world.restored()
    assert rows_of(restored, "chunks") == wanted
    assert [one.table for one in maintain(restored, ("chunks",))] == ["chunks"]
    assert rows_of(restored, "chunks") == wanted
    again = Store(restored.root)
    write_deltalake(again.table_uri("chunks"), pa.table({"partition_key": ["d"], "value": [4]}), mode="append")
    assert len(rows_of(again, "chunks")) == len(wanted) + 1


def test_damage_is_found_and_not_restored(world: World) -> None:
    world.take()
    snapshot = read_snapshot(world.backup)
    assert check(world.backup, snapshot) == []
    blob = world.blob_of("chunks")
    content = blob.read_bytes()
    blob.write_bytes(content[:-1] + b"?")
    (problem,) = check(world.backup, snapshot)
    assert problem.startswith("chunks/partition_key=a/")
    assert "other content" in problem
    with pytest.raises(PermanentError, match="is damaged; take an older snapshot"):
        world.restored()
    blob.unlink()
    (problem,) = check(world.backup, snapshot)
    assert "is not there" in problem
    with pytest.raises(PermanentError, match="is not there; take an older snapshot"):
        world.restored()
    assert world.take().copied == 1, "what is missing is copied again, though the last list names it"
    assert rows_of(world.restored(), "chunks") == [("a", 10)]


def test_a_restoration_that_was_cut_off_goes_on(world: World) -> None:
    world.take()
    blob = world.blob_of("chunks")
    content = blob.read_bytes()
    blob.unlink()
    target = Store(str(world.folder / "target"))
    with pytest.raises(PermanentError):
        restore(world.backup, read_snapshot(world.backup), target)
    blob.write_bytes(content)
    world.write("documents", {"c": 3})
    other = world.take().snapshot
    with pytest.raises(PermanentError, match="was cut off there; end it, or empty the store"):
        restore(world.backup, other, target)
    restore(world.backup, read_snapshot(world.backup, snapshot_names(world.backup)[0]), target)
    assert rows_of(target, "documents") == [("a", 1), ("b", 2)]
    assert rows_of(target, "chunks") == [("a", 10)]


def test_a_store_with_tables_is_left_alone(world: World) -> None:
    world.take()
    with pytest.raises(PermanentError, match=r"has tables \(chunks, documents, ...\)"):
        restore(world.backup, read_snapshot(world.backup), world.store)


def test_old_snapshots_and_their_files_go(world: World) -> None:
    first = world.take().snapshot
    world.write("documents", {"a": 3}, "overwrite")
    kept = world.take().snapshot
    later = datetime.now(UTC) + timedelta(days=3)
    assert give_up_old(world.backup, keep=2, now=later) == ([], 0)
    assert give_up_old(world.backup, keep=1, now=datetime.now(UTC)) == ([first.name], 0), "they may be of one under way"
    assert give_up_old(world.backup, keep=1, now=later) == ([], 2), "the two data files that were overwritten"
    assert {info.base_name for info in blobs(world.backup)} == set(kept.files)
    assert rows_of(world.restored(), "documents") == [("a", 3)]
    with pytest.raises(PermanentError, match=f"no snapshot {first.name}; it has {kept.name}"):
        world.restored(first.name)


def test_an_empty_store_has_nothing_to_back_up(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    with pytest.raises(PermanentError, match="it has no tables"):
        take(store, backup_store(store, str(tmp_path / "backup")), now=NOW)


@pytest.mark.parametrize("root", ["/data/store", "/data/store/backup", "/data", "/data/store/"])
def test_a_backup_lies_outside_of_the_store(root: str) -> None:
    with pytest.raises(PermanentError, match="outside of the store"):
        backup_store(Store("/data/store"), root)


def test_a_backup_beside_the_store_is_fine() -> None:
    assert backup_store(Store("/data/store"), "/data/store2").root == "/data/store2"
