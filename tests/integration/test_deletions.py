"""A removed document has one receipt that says what is true, whatever happens in between; what is found has none."""

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rag_core.errors import TransientError
from rag_core.index import lite_server, schema
from rag_core.index.client import IndexClient, connect
from rag_core.index.samples import samples_of
from rag_core.index.unfindable import found_by_id, found_by_text, found_by_vector
from rag_core.stages import deletions
from rag_core.stages.deletions import Removals
from rag_core.stages.kept import remove_from_kept
from rag_core.stages.publication import Generations
from rag_core.stages.retirement import retire
from rag_core.stages.rollback import withdraw
from rag_core.tables.store import Store
from tests.deletion_support import BESIDE, CHUNKS, HERE, World, chunk_ids, chunk_rows, write_documents
from tests.index_support import CONFIG, doc_id, rows, vector
from tests.integration.pipeline_helpers import Platform, search_json

pytestmark = pytest.mark.milvus
VERIFIED = ("unfindable_by_id", "unfindable_by_text", "unfindable_by_vector")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IndexClient]:
    store = Store(str(tmp_path_factory.mktemp("milvus")))
    with connect(CONFIG, store) as connected:
        yield connected
    lite_server.stop(lite_server.lite_files(store))


@pytest.fixture
def world(tmp_path: Path, client: IndexClient) -> World:
    """Documents 0 to 5, indexed."""
    made = World(tmp_path, client)
    made.have(dict.fromkeys(range(6), "ok"))
    made.index()
    return made


def test_removed_documents_have_receipts(world: World) -> None:
    write_documents(world.store, {0: "ok", 1: "ok", 2: "ok", 3: "empty", 4: "rejected"})
    world.cut([0, 1, 2])
    output = world.index(run_id="removing")
    assert output.totals["receipts"] == 3
    receipts = {row["doc_id"]: row for row in world.receipts()}
    assert {one: row["reason"] for one, row in receipts.items()} == {
        doc_id(3): "empty",
        doc_id(4): "rejected",
        doc_id(5): "gone",
    }
    for row in receipts.values():
        assert all(row[name] for name in VERIFIED)
        assert (row["rows_removed"], row["chunks_searched"], row["run_id"]) == (CHUNKS, CHUNKS, "removing")
        assert row["absence_seen_at"] < row["removed_at"] <= row["verified_at"]
        assert row["caches_told_at"] is None
        assert row["indexed_again_at"] is None
    assert receipts[doc_id(5)]["uri"] == "file:///handbook/page-5.md"
    assert receipts[doc_id(5)]["external_id"] == "page-5.md"
    assert world.held() == world.ledger() == {doc_id(number) for number in range(3)}
    assert world.notes() == []


def test_changed_documents_have_none(world: World) -> None:
    world.cut(range(5))  # as a document whose new text was not embedded yet
    world.index()
    assert doc_id(5) not in world.held()
    assert world.receipts() == []


def test_document_that_comes_back_is_indexed_anew(world: World) -> None:
    everything = dict.fromkeys(range(6), "ok")
    for _ in range(2):
        world.have(dict.fromkeys(range(5), "ok"))
        world.index()
        assert world.held() == world.ledger() == {doc_id(number) for number in range(5)}
        world.have(everything)
        world.index()
        assert world.held() == world.ledger() == {doc_id(number) for number in range(6)}
    first, second = world.receipts(doc="page-5.md")
    assert first["absence_seen_at"] < first["removed_at"] < second["absence_seen_at"]
    assert second["removed_at"] < second["indexed_again_at"]
    hits = world.client.search(
        world.generation.collection, field=schema.DENSE, query=vector(50), limit=1, fields=("doc_id",)
    )
    assert hits[0][1]["doc_id"] == doc_id(5)


class KilledError(Exception):
    """Stands for a process that ended there."""


@pytest.mark.parametrize("point", ["deletions.after_note", "deletions.before_receipts", "deletions.after_receipts"])
@pytest.mark.parametrize("comes_back", [False, True])
def test_cut_off_run(world: World, monkeypatch: pytest.MonkeyPatch, point: str, comes_back: bool) -> None:
    def crash(name: str) -> None:
        if name == point:
            raise KilledError

    world.have(dict.fromkeys(range(5), "ok"))
    with monkeypatch.context() as patch:
        patch.setattr(deletions, "crash_point", crash)
        with pytest.raises(KilledError):
            world.index(run_id="killed")
    assert doc_id(5) in world.ledger()
    assert len(world.notes()) == 1
    killed_at = datetime.now(UTC)
    # Further versions, in which the document is missing as well, do not move the time of its absence.
    world.have(dict.fromkeys(range(4), "ok"))
    world.have(dict.fromkeys(range(6 if comes_back else 5), "ok"))
    world.index(run_id="second")
    receipts = world.receipts(doc=doc_id(5))
    assert world.notes() == []
    if comes_back:
        assert world.held() == world.ledger() == {doc_id(number) for number in range(6)}
        assert len(receipts) == (1 if point == "deletions.after_receipts" else 0)
        world.have(dict.fromkeys(range(5), "ok"))
        world.index()
        assert len(world.receipts(doc=doc_id(5))) == len(receipts) + 1
        return
    assert len(receipts) == 1
    assert receipts[0]["absence_seen_at"] < killed_at
    assert all(receipts[0][name] for name in VERIFIED)
    assert receipts[0]["chunks_searched"] == CHUNKS
    assert receipts[0]["run_id"] == ("killed" if point == "deletions.after_receipts" else "second")


def test_what_is_still_found_has_no_receipt(world: World) -> None:
    collection = world.generation.collection
    world.have(dict.fromkeys(range(5), "ok"))
    # Behind everybody's back: a chunk of the document under another id, in another partition.
    stray = chunk_rows([5], BESIDE).slice(0, 1)
    stray = stray.set_column(stray.schema.get_field_index("chunk_id"), "chunk_id", [["f" * 32]])
    world.client.ensure_partition(collection, BESIDE)
    world.client.upsert(collection, BESIDE, stray)
    with pytest.raises(TransientError) as caught:
        world.index()
    for words in ("1 by id", "1 by own text", "1 by own vector", "page-5.md", HERE, "rag verify --repair"):
        assert words in str(caught.value)
    assert world.receipts() == []
    assert doc_id(5) in world.ledger()
    world.client.delete(collection, BESIDE, ["f" * 32])
    world.client.flush(collection)
    world.index()
    assert [row["doc_id"] for row in world.receipts()] == [doc_id(5)]
    assert doc_id(5) not in world.ledger()


def test_each_search_finds_what_is_there(world: World) -> None:
    collection = world.generation.collection
    there = {doc_id(number): chunk_ids(number) for number in (1, 4)}
    samples = [one for some in samples_of(world.client, collection, HERE, there, most=2).values() for one in some]
    assert len(samples) == 4
    for found in (
        found_by_id(world.client, collection, there),
        found_by_text(world.client, collection, samples),
        found_by_vector(world.client, collection, samples),
    ):
        assert found == set(there)
    assert found_by_id(world.client, collection, {doc_id(9): chunk_ids(9)}) == set()


def test_copies_of_its_text_may_stay(world: World) -> None:
    """The same text under another document is no trace of the removed one."""
    world.client.ensure_partition(world.generation.collection, BESIDE)
    copies = rows(
        [50, 51, 52], partition_key=BESIDE, doc_id=doc_id(99), model_fingerprint=world.generation.spec.fingerprint
    )
    copies = copies.set_column(copies.schema.get_field_index("chunk_id"), "chunk_id", [[c * 32 for c in "abc"]])
    world.client.upsert(world.generation.collection, BESIDE, copies)
    world.have(dict.fromkeys(range(5), "ok"))
    world.index()
    assert [row["doc_id"] for row in world.receipts()] == [doc_id(5)]


def test_rows_deleted_behind_the_ledger(world: World) -> None:
    """Nothing is left to search for; the receipt says so."""
    world.client.delete(world.generation.collection, HERE, chunk_ids(5))
    world.client.flush(world.generation.collection)
    world.have(dict.fromkeys(range(5), "ok"))
    world.index()
    (receipt,) = world.receipts()
    assert [receipt[name] for name in VERIFIED] == [True, None, None]
    assert receipt["uri"] == "file:///handbook/page-5.md"


class Caches:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def forget(self, doc_ids: Any) -> None:
        self.told += doc_ids


def test_many_at_once_are_looked_up_by_id_and_caches_are_told(world: World) -> None:
    collection, caches = world.generation.collection, Caches()
    world.have({0: "ok"})
    gone = {doc_id(number): chunk_ids(number) for number in range(6)}
    removals = Removals(world.store, world.client, collection, run_id="many", caches=caches, searched_documents=2)
    noted = removals.note(HERE, gone)
    assert noted == sorted(doc_id(number) for number in range(1, 6))
    world.client.delete(collection, HERE, [one for doc in noted for one in gone[doc]])
    removals.verify(HERE)
    assert (removals.write(), removals.not_searched) == (5, 3)
    removals.end()
    receipts = {row["doc_id"]: row for row in world.receipts()}
    assert [one for one in noted if receipts[one]["unfindable_by_vector"]] == noted[:2]
    assert all(row["unfindable_by_id"] and row["caches_told_at"] >= row["verified_at"] for row in receipts.values())
    assert sorted(caches.told) == noted


def test_kept_collections_are_cleaned(world: World) -> None:
    new = world.another()
    world.index(generation=new)
    known = Generations(target=new)
    write_documents(world.store, dict.fromkeys(range(5), "ok"))
    # Its chunks are still there: checks hold the partition back, and nothing is removed.
    assert remove_from_kept(world.store, known, world.client, [HERE], run_id="held") == 0
    world.cut(range(5))
    world.index(generation=new, run_id="active")
    assert remove_from_kept(world.store, known, world.client, [HERE], run_id="kept") == 1
    assert remove_from_kept(world.store, known, world.client, [HERE], run_id="again") == 0
    for generation in (world.generation, new):
        assert world.held(generation) == world.ledger(generation) == {doc_id(number) for number in range(5)}
    receipts = {row["collection"]: row for row in world.receipts()}
    assert {name: row["run_id"] for name, row in receipts.items()} == {
        world.generation.collection: "kept",
        new.collection: "active",
    }
    assert len({row["absence_seen_at"] for row in receipts.values()}) == 1


def test_rollback_withdraws_with_receipts(world: World) -> None:
    write_documents(world.store, dict.fromkeys(range(5), "ok"))
    collection = world.generation.collection
    assert withdraw(world.store, world.config, world.client, collection, run_id="rollback") == CHUNKS
    (receipt,) = world.receipts()
    assert (receipt["doc_id"], receipt["reason"], receipt["run_id"]) == (doc_id(5), "gone", "rollback")
    assert doc_id(5) not in world.held() | world.ledger()


def test_source_taken_out(world: World, tmp_path: Path) -> None:
    other = world.config.sources[0].model_copy(update={"name": "other"})
    config = world.config.model_copy(update={"sources": (other,)})
    assert retire(world.store, config, world.client, run_id="retiring") == [HERE]
    receipts = world.receipts()
    assert {row["doc_id"] for row in receipts} == {doc_id(number) for number in range(6)}
    assert {row["reason"] for row in receipts} == {"source_removed"}
    assert all(row[name] for row in receipts for name in VERIFIED)
    assert world.held() == set()
    assert world.notes() == []


def test_fewer_buckets_remove_nothing(world: World) -> None:
    world.have(dict.fromkeys(range(6, 9), "ok"), BESIDE)
    world.index(BESIDE)
    config = world.config.model_copy(update={"buckets": 1})
    assert retire(world.store, config, world.client, run_id="retiring") == [BESIDE]
    assert world.receipts() == []


@pytest.mark.slow
def test_as_a_user_runs_it(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number in range(4):
        (corpus / f"pump{number}.md").write_text(f"# Pump {number}\n\nThe quokka valve {number} is opened by hand.\n")
    platform = Platform(tmp_path / "platform", [{"name": "manuals", "kind": "files", "root": str(corpus)}])
    try:
        platform.run()
        assert "no documents were removed" in platform.command("receipts").stdout
        page = corpus / "pump2.md"
        text = page.read_text()
        page.unlink()
        platform.run()
        found = {hit["uri"] for mode in ("dense", "bm25") for hit in search_json(platform, text, mode)}
        assert found
        assert not any(uri.endswith("pump2.md") for uri in found)
        page.write_text(text)
        platform.run()
        assert search_json(platform, text, "hybrid")[0]["uri"].endswith("pump2.md")
        (receipt,) = map(json.loads, platform.rag("receipts", "--json").stdout.splitlines())
        assert receipt["uri"].endswith("pump2.md")
        assert all(receipt[name] for name in VERIFIED)
        assert receipt["indexed_again_at"] > receipt["verified_at"]
        (line,) = csv.DictReader(io.StringIO(platform.rag("receipts", "--csv", "--doc", "pump2.md").stdout))
        assert line["doc_id"] == receipt["doc_id"]
        assert (
            "not found by id, text, vector; 1 of its chunks" in platform.rag("receipts", "--since", "2026-01-01").stdout
        )
        assert "no documents were removed that match" in platform.rag("receipts", "--doc", "pump1.md").stdout
    finally:
        platform.stop()
