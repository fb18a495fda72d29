"""Opened tables are shared and followed; nobody sees an old one, nor another's."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from rag_core.tables import handles
from rag_core.tables.delta import SCHEMAS, TableSlice, newest_version
from rag_core.tables.log import append_rows
from rag_core.tables.store import Store

TABLE = "feedback"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def row(number: int) -> dict[str, object]:
    """Return a row whose values are all made of a number."""
    return {field.name: _value(field.type, number) for field in SCHEMAS[TABLE]}


def _value(kind: pa.DataType, number: int) -> object:
    if pa.types.is_list(kind):
        return []
    return str(number) if pa.types.is_string(kind) else number


def test_a_commit_is_seen_at_once_whoever_made_it(store: Store) -> None:
    assert newest_version(store, TABLE) == 0
    for number in range(1, 4):
        append_rows(store, TABLE, [row(number)])
        assert newest_version(store, TABLE) == number
        assert TableSlice.newest(store, TABLE).count() == number


def test_a_slice_stays_at_its_version(store: Store) -> None:
    append_rows(store, TABLE, [row(1)])
    before = TableSlice.newest(store, TABLE)
    append_rows(store, TABLE, [row(2)])
    after = TableSlice.newest(store, TABLE)
    assert (before.count(), after.count(), before.count()) == (1, 2, 1)


def test_a_table_is_opened_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    append_rows(store, TABLE, [row(1)])
    opened = []
    original = handles.DeltaTable
    monkeypatch.setattr("rag_core.tables.delta.DeltaTable", lambda *a, **k: opened.append(1) or original(*a, **k))
    monkeypatch.setattr("rag_core.tables.handles.DeltaTable", lambda *a, **k: opened.append(1) or original(*a, **k))
    for _ in range(5):
        assert TableSlice.newest(store, TABLE).count() == 1
    assert len(opened) == 1


def test_a_table_that_took_its_place_is_another(store: Store) -> None:
    for number in range(3):
        append_rows(store, TABLE, [row(number)])
    assert newest_version(store, TABLE) == 3
    shutil.rmtree(store.root)
    assert newest_version(store, TABLE) == 0
    append_rows(store, TABLE, [row(9)])
    assert TableSlice.newest(store, TABLE).count() == 1


@pytest.mark.slow
def test_many_threads_at_many_versions(store: Store) -> None:
    slices = []
    for number in range(6):
        append_rows(store, TABLE, [row(number)])
        slices.append(TableSlice.newest(store, TABLE))

    def look(number: int) -> bool:
        if number % 10 == 0:
            append_rows(store, TABLE, [row(number)])
        return slices[number % 6].count() == number % 6 + 1 and TableSlice.newest(store, TABLE).count() >= 6

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(look, range(60)))


def test_a_forked_child_begins_anew(store: Store) -> None:
    newest_version(store, TABLE)
    mine = handles.HANDLES
    child = os.fork()
    if child == 0:
        os._exit(0 if handles.HANDLES is not mine else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert handles.HANDLES is mine
