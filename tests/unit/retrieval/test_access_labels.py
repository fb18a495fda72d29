"""The labels that documents have now; what was read once is not read again, and what is doubtful is hidden."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from rag_core import ids
from rag_core.retrieval.access_labels import LabelReader
from rag_core.retrieval.visible import AccessMap
from rag_core.tables.delta import ensure_table
from rag_core.tables.store import Store
from tests.unit.stages.generation_rows import put


def label(*principals: str) -> str:
    return ids.access_label(principals)


def document(name: str, *principals: str, source: str = "notes", **values: Any) -> dict[str, Any]:
    return {
        "doc_id": name, "source": source, "partition_key": f"{source}__00", "status": "ok",
        "principals": sorted(principals), "access_label": label(*principals), **values,
    }  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def test_labels_principals_and_sources(store: Store) -> None:
    put(store, "documents", [document("a", "all"), document("b", "all"), document("c", "hr", "ceo")])
    put(store, "documents", [document("d", "all", source="wiki"), document("e", "ops", status="rejected")])
    assert LabelReader(store).read() == AccessMap(
        {label("all"): frozenset({"all"}), label("ceo", "hr"): frozenset({"hr", "ceo"})},
        {label("all"): frozenset({"notes", "wiki"}), label("ceo", "hr"): frozenset({"notes"})},
    )


def test_without_documents_nobody_sees_anything(store: Store) -> None:
    assert LabelReader(store).read().labels_for(["all"]) == ()


def test_only_new_files_are_read(store: Store) -> None:
    put(store, "documents", [document("a", "all")])
    reader = LabelReader(store)
    reader.read()
    for path in Path(store.table_uri("documents")).rglob("*.parquet"):
        path.write_bytes(b"")  # reading it again would fail
    put(store, "documents", [document("b", "hr", source="wiki")])
    put(store, "documents", [document("c", "ops")])
    assert set(reader.read().principals) == {label("all"), label("hr"), label("ops")}


def test_a_label_without_documents_is_gone(store: Store) -> None:
    put(store, "documents", [document("a", "all"), document("b", "hr")])
    reader = LabelReader(store)
    assert reader.read().labels_for(["hr"]) == (label("hr"),)
    ensure_table(store, "documents").delete("doc_id = 'b'")
    assert reader.read().labels_for(["hr", "all"]) == (label("all"),)


def test_a_label_that_is_not_of_its_principals_admits_nobody(store: Store) -> None:
    put(store, "documents", [document("a", "all", access_label=label("hr")), document("b", "all")])
    assert LabelReader(store).read().principals == {label("all"): frozenset({"all"})}


def test_a_document_without_principals_is_for_nobody(store: Store) -> None:
    put(store, "documents", [document("a")])
    access = LabelReader(store).read()
    assert access.principals == {label(): frozenset()}
    assert access.labels_for(["all", ""]) == ()


def test_a_look_that_fails_is_made_good_by_the_next(store: Store) -> None:
    put(store, "documents", [document("a", "all")])
    reader = LabelReader(store)
    reader.read()
    put(store, "documents", [document("b", "hr", source="wiki")])
    (path,) = Path(store.table_uri("documents"), "partition_key=wiki__00").glob("*.parquet")
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(OSError, match="parquet"):
        reader.read()
    path.write_bytes(content)
    assert set(reader.read().principals) == {label("all"), label("hr")}


def test_a_table_that_was_made_anew_is_noticed(store: Store) -> None:
    put(store, "documents", [document("a", "all")])
    put(store, "documents", [document("b", "hr")])
    reader = LabelReader(store)
    reader.read()
    shutil.rmtree(store.table_uri("documents"))
    put(store, "documents", [document("c", "ops")])
    assert set(reader.read().principals) == {label("ops")}
