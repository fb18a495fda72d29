"""Absences from the history, notes that survive, receipts that are written once."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_core.errors import TransientError
from rag_core.index.unfindable import Sample
from rag_core.schemas import DELETIONS
from rag_core.stages import receipts as receipts_module
from rag_core.stages.absence import Absence, AbsenceFinder, removal_reasons
from rag_core.stages.deletions import chunks_by_document
from rag_core.stages.receipts import read_receipts, receipt_id, write_receipts
from rag_core.stages.removal_notes import Note, RemovalNotes
from rag_core.tables.delta import ensure_table
from rag_core.tables.store import Store
from tests.deletion_support import BESIDE, HERE, write_documents
from tests.index_support import doc_id

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def ok(*numbers: int) -> dict[int, str]:
    return dict.fromkeys(numbers, "ok")


def receipt(doc: str, *, absent: datetime = NOON, collection: str = "c", **values: object) -> dict[str, object]:
    made = {
        "receipt_id": receipt_id(doc, collection, absent),
        "doc_id": doc,
        "partition_key": HERE,
        "collection": collection,
        "uri": f"file:///handbook/{doc}.md",
        "external_id": f"{doc}.md",
        "reason": "gone",
        "absence_seen_at": absent,
        "removed_at": absent + timedelta(minutes=1),
        "rows_removed": 3,
        "unfindable_by_id": True,
        "unfindable_by_text": True,
        "unfindable_by_vector": None,
        "chunks_searched": 0,
        "verified_at": absent + timedelta(minutes=2),
        "caches_told_at": None,
        "run_id": "run",
    }
    return made | values


def table(*rows: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=DELETIONS)


def test_reasons_tell_what_became_of_a_document(store: Store) -> None:
    write_documents(store, {1: "ok", 2: "empty", 3: "rejected"})
    write_documents(store, ok(4), BESIDE)
    asked = [doc_id(number) for number in range(1, 6)]
    # Document 4 moved to another partition, 5 is nowhere.
    assert removal_reasons(store, HERE, asked) == {doc_id(2): "empty", doc_id(3): "rejected", doc_id(5): "gone"}
    assert removal_reasons(store, HERE, []) == {}


def test_absence_is_the_commit_that_took_the_document_away(store: Store) -> None:
    write_documents(store, ok(1, 2, 3, 4))
    write_documents(store, {1: "ok", 2: "ok", 3: "rejected"})
    write_documents(store, ok(7, 8), BESIDE)
    write_documents(store, {1: "ok", 3: "rejected"})
    write_documents(store, ok(7), BESIDE)
    times = {commit["version"]: commit["timestamp"] for commit in ensure_table(store, "documents").history()}
    found = AbsenceFinder(store).find(HERE, [doc_id(2), doc_id(3), doc_id(4)])
    seen = {one: absence.seen_at.timestamp() * 1000 for one, absence in found.items()}
    assert seen == pytest.approx({doc_id(2): times[4], doc_id(3): times[2], doc_id(4): times[2]})
    assert found[doc_id(4)].uri == "file:///handbook/page-4.md"
    assert found[doc_id(4)].external_id == "page-4.md"


def test_absence_of_a_document_that_came_back_is_the_last_one(store: Store) -> None:
    for documents in (ok(1, 2), ok(1), ok(1, 2), ok(1)):
        write_documents(store, documents)
    found = AbsenceFinder(store).find(HERE, [doc_id(2)])[doc_id(2)]
    newest = ensure_table(store, "documents").history(1)[0]["timestamp"]
    assert found.seen_at.timestamp() * 1000 == pytest.approx(newest)


@pytest.mark.slow
def test_absence_beyond_what_is_looked_at_is_the_newest_removal(store: Store) -> None:
    write_documents(store, ok(*range(20)))
    for number in range(20, 8, -1):
        write_documents(store, ok(*range(number)))
    found = AbsenceFinder(store).find(HERE, [doc_id(19), doc_id(99)])
    newest = ensure_table(store, "documents").history(1)[0]["timestamp"]
    for absence in found.values():
        assert absence.seen_at.timestamp() * 1000 == pytest.approx(newest)
        assert absence.uri == ""


@settings(deadline=None, max_examples=30)  # files are written
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=3),
    indexed=st.none() | st.just(NOON),
)
def test_notes_survive(tmp_path_factory: pytest.TempPathFactory, texts: list[str], indexed: datetime | None) -> None:
    notes = RemovalNotes(Store(str(tmp_path_factory.mktemp("notes"))), "collection")
    vector = np.array([0.6, 0.8], np.float32)
    samples = tuple(Sample("d", text, "", "en", vector) for text in texts)
    note = Note("d", indexed, "gone", Absence(NOON, "file:///d", None), samples)
    assert notes.load(HERE) == {}
    notes.save(HERE, [Note("other", None, "gone", Absence(NOON))])
    notes.save(HERE, [note])
    (loaded,) = notes.load(HERE).values()
    assert (loaded.doc_id, loaded.indexed_at, loaded.absence) == ("d", indexed, note.absence)
    assert [one.text for one in loaded.samples] == [one.text for one in samples]
    assert all((one.vector == vector).all() for one in loaded.samples)
    assert notes.load(BESIDE) == {}
    notes.remove(HERE)
    notes.remove(HERE)
    assert notes.load(HERE) == {}


def test_receipts_are_written_once(store: Store) -> None:
    assert write_receipts(store, table(receipt("a"), receipt("b")), run_id="first") == 2
    later = receipt("a", run_id="second", removed_at=NOON + timedelta(hours=1))
    assert write_receipts(store, table(later, receipt("c")), run_id="second") == 1
    assert write_receipts(store, table(later), run_id="third") == 0
    other_absence = receipt("a", absent=NOON + timedelta(days=1))
    assert write_receipts(store, table(other_absence, receipt("a", collection="d")), run_id="fourth") == 2
    assert [row["doc_id"] for row in read_receipts(store).to_pylist()] == ["a", "a", "b", "c", "a"]


def test_two_runs_do_not_write_the_same_receipt(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before = ensure_table(store, "deletions")
    write_receipts(store, table(receipt("a")), run_id="first")
    monkeypatch.setattr(receipts_module, "ensure_table", lambda *_: before)  # as the second run had opened it
    with pytest.raises(TransientError, match="another run"):
        write_receipts(store, table(receipt("a")), run_id="second")
    monkeypatch.undo()
    assert read_receipts(store).num_rows == 1


def test_receipts_are_selected(store: Store) -> None:
    rows = [receipt("pump"), receipt("valve", absent=NOON + timedelta(days=1), run_id="other")]
    write_receipts(store, table(*rows), run_id="run")

    def docs(**selected: object) -> list[str]:
        return read_receipts(store, **selected)["doc_id"].to_pylist()

    assert docs() == ["pump", "valve"]
    assert docs(doc="pump") == docs(doc="pump.md") == docs(doc="book/pu") == ["pump"]
    assert docs(doc="tank") == []
    assert docs(since=NOON + timedelta(hours=1)) == ["valve"]
    assert docs(run_id="other") == ["valve"]


def test_id_depends_on_the_moment_and_not_on_its_zone() -> None:
    elsewhere = NOON.astimezone(datetime.now().astimezone().tzinfo)
    assert receipt_id("a", "c", NOON) == receipt_id("a", "c", elsewhere)
    assert receipt_id("a", "c", NOON) != receipt_id("a", "c", NOON + timedelta(milliseconds=1))


def test_chunks_by_document() -> None:
    rows = pa.table({"doc_id": ["a", "b", "a"], "chunk_id": ["1", "2", "3"], "more": [1, 2, 3]})
    assert chunks_by_document(rows) == {"a": ["1", "3"], "b": ["2"]}
