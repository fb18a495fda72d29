"""A partition comes to hold exactly what it must, whatever a crash or another writer left."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from rag_core.errors import TransientError
from rag_core.index import lite_server
from rag_core.index.client import IndexClient, connect
from rag_core.index.journal import SyncJournal
from rag_core.index.sync import SyncResult, sync_partition
from rag_core.retrieval.search import search
from rag_core.tables.store import Store
from tests.index_support import CONFIG, DIM, MODEL, PARTITION, chunk_id, hashes, rows, sync_in_process, vector, word

pytestmark = pytest.mark.milvus
REPO = Path(__file__).resolve().parents[2]
CRASH_POINTS = [
    "index.before_upsert",
    "index.mid_upsert",
    "index.after_upsert",
    "index.after_flush",
    "index.after_verify",
    "index.mid_delete",
    "index.after_delete",
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    made = Store(str(tmp_path_factory.mktemp("store")))
    yield made
    lite_server.stop(lite_server.lite_files(made))


@pytest.fixture(scope="module")
def client(store: Store) -> Iterator[IndexClient]:
    with connect(CONFIG, store) as connected:
        yield connected


@pytest.fixture
def collection(client: IndexClient) -> Iterator[str]:
    """A collection that holds chunks 0 to 99."""
    name = f"c_{uuid4().hex[:8]}"
    client.ensure_collection(name, dim=DIM, model_fingerprint=MODEL)
    client.ensure_partition(name, PARTITION)
    client.upsert(name, PARTITION, rows(range(100)))
    client.flush(name)
    yield name
    client.drop_collection(name)


def run(
    client: IndexClient,
    collection: str,
    wanted: pa.Table,
    *,
    changes: pa.Table | None = None,
    delete: list[str] | None = None,
    mend: bool = True,
    journal: SyncJournal | None = None,
    on_progress: Callable[[str, int], None] | None = None,
) -> SyncResult:
    return sync_partition(
        client,
        collection,
        PARTITION,
        changes=[] if changes is None else [changes],
        delete_ids=delete or [],
        expected_count=wanted.num_rows,
        expected=lambda: hashes(wanted),
        rows_for=(lambda asked: [wanted.filter(pc.is_in(wanted["chunk_id"], pa.array(asked)))]) if mend else None,
        journal=journal,
        on_progress=on_progress,
    )


def held(client: IndexClient, collection: str) -> dict[str, str]:
    return {row["chunk_id"]: row["row_hash"] for row in client.list_rows(collection, PARTITION, ["row_hash"])}


def test_changes_and_deletes(client: IndexClient, collection: str) -> None:
    changed = pa.concat_tables([rows(range(10), "v2"), rows(range(10, 20), title="New"), rows(range(100, 200))])
    wanted = pa.concat_tables([changed, rows(range(20, 100))])
    seen: list[tuple[str, int]] = []
    gone = [chunk_id(number) for number in range(10)]
    result = run(
        client,
        collection,
        wanted,
        changes=changed,
        delete=gone,
        on_progress=lambda step, done: seen.append((step, done)),
    )
    assert (result.upserted, result.deleted, result.verified, result.repaired) == (120, 10, 120, 0)
    assert result.count == 200
    assert seen == [("upsert", 40), ("upsert", 80), ("upsert", 120), ("delete", 10)]
    assert set(result.seconds) == {"upsert", "flush", "verify", "delete", "count"}
    assert held(client, collection) == hashes(wanted)
    for mode in ("bm25", "dense"):
        hits = search(client, collection, text=word(3), vector=vector(3), model_fingerprint=MODEL, mode=mode, top_k=300)
        assert chunk_id(3) not in {hit.chunk_id for hit in hits}
    again = run(client, collection, wanted, changes=changed, delete=gone)
    assert (again.repaired, again.count) == (0, 200)
    assert held(client, collection) == hashes(wanted)


def test_orphan_is_deleted_although_nothing_changed(client: IndexClient, collection: str) -> None:
    client.upsert(collection, PARTITION, rows([500]))
    wanted = rows(range(100))
    result = run(client, collection, wanted)
    assert (result.upserted, result.deleted, result.repaired, result.count) == (0, 0, 1, 100)
    assert held(client, collection) == hashes(wanted)


def test_missing_rows_are_mended_or_reported(client: IndexClient, collection: str) -> None:
    client.delete(collection, PARTITION, [chunk_id(3), chunk_id(4)])
    wanted = rows(range(100))
    with pytest.raises(TransientError, match="2 rows missing or stale"):
        run(client, collection, wanted, mend=False)
    assert run(client, collection, wanted).repaired == 2
    assert held(client, collection) == hashes(wanted)


def test_what_cannot_be_mended_is_a_transient_error(client: IndexClient, collection: str) -> None:
    wanted = rows(range(101))
    with pytest.raises(TransientError, match="no rows to mend 1 with"):
        sync_partition(
            client, collection, PARTITION, changes=[], delete_ids=[], expected_count=101,
            expected=lambda: hashes(wanted), rows_for=lambda _: [],
        )  # fmt: skip


def test_orphan_and_gap_that_cancel_out_are_found_after_a_crash(
    client: IndexClient, collection: str, store: Store
) -> None:
    # A run wrote v2 of chunk 1 and deleted v1, was killed before the ledger, and the document went back to v1.
    journal = SyncJournal(store, collection)
    journal.begin(PARTITION)
    client.upsert(collection, PARTITION, rows([1], "v2"))
    client.delete(collection, PARTITION, [chunk_id(1)])
    client.upsert(collection, PARTITION, rows([2], title="Stale"))
    wanted = rows(range(100))
    assert client.count(collection, PARTITION) == wanted.num_rows
    assert run(client, collection, wanted, journal=journal).repaired == 3
    assert held(client, collection) == hashes(wanted)
    assert journal.is_open(PARTITION)
    journal.end(PARTITION)
    journal.end(PARTITION)
    assert not journal.is_open(PARTITION)


@pytest.mark.parametrize("place", CRASH_POINTS)
def test_crash_anywhere_then_a_rerun_ends_like_a_clean_run(
    client: IndexClient, collection: str, store: Store, place: str
) -> None:
    crashed = subprocess.run(
        [sys.executable, str(REPO / "tests" / "index_support.py"), "sync", store.root, collection],
        env={**os.environ, "PYTHONPATH": str(REPO), "RAG_CRASH_AT": place},
        check=False,
    )
    assert crashed.returncode == -signal.SIGKILL
    assert SyncJournal(store, collection).is_open(PARTITION)
    sync_in_process(store.root, collection)
    assert not SyncJournal(store, collection).is_open(PARTITION)
    wanted = pa.concat_tables([rows(range(30), "v2"), rows(range(30, 200))])
    assert client.count(collection, PARTITION) == client.count(collection) == 200
    assert client.list_ids(collection) == sorted(wanted["chunk_id"].to_pylist())
    assert held(client, collection) == hashes(wanted)


def test_writers_take_turns(client: IndexClient, store: Store, collection: str) -> None:
    with connect(CONFIG, store) as other, client.write_lock():
        assert client.upsert(collection, PARTITION, rows([1])) == 1  # the holder itself may write
        locked = pytest.MonkeyPatch()
        locked.setattr("rag_core.index.admin._WRITE_LOCK_S", 0.2)
        with pytest.raises(TransientError, match="locked by another process"):
            other.upsert(collection, PARTITION, rows([2]))
        locked.undo()
