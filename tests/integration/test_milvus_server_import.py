"""First loads by import on a real server with storage in a folder: what comes, what is refused, what a crash leaves."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from rag_core.config import IndexConfig
from rag_core.config_index import BulkImportConfig
from rag_core.config_store import S3Config
from rag_core.index.client import IndexClient, connect
from rag_core.index.journal import SyncJournal
from rag_core.index.sync import SyncResult, sync_partition
from rag_core.tables.store import Store
from tests.index_support import DIM, MODEL, PARTITION, chunk_id, hashes, rows, vector
from tests.integration.milvus_helpers import TEXTS, Server, platform, started
from tests.production import services

pytestmark = [pytest.mark.milvus_server, pytest.mark.slow]
ROWS = 500


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with started(tmp_path_factory.mktemp("milvus")) as made:
        yield made


def index(server: Server, to: str, **settings: Any) -> IndexConfig:
    bulk = BulkImportConfig(to=to, min_rows=ROWS)
    return IndexConfig(uri=server.uri, lexical=False, timeout_s=20, write_batch=200, bulk_import=bulk, **settings)


def synced(client: IndexClient, store: Store, name: str, wanted: pa.Table, changed: pa.Table) -> SyncResult:
    client.ensure_collection(name, dim=DIM, model_fingerprint=MODEL)
    journal = SyncJournal(store, name)
    result = sync_partition(
        client,
        name,
        PARTITION,
        changes=[changed],
        delete_ids=[],
        expected_count=wanted.num_rows,
        expected=lambda: hashes(wanted),
        rows_for=lambda ids: [wanted.filter(pc.is_in(wanted["chunk_id"], pa.array(ids)))],
        journal=journal,
    )
    journal.end(PARTITION)
    return result


def test_a_first_load_is_imported_and_changes_are_upserted(tmp_path: Path, server: Server) -> None:
    to, store = tmp_path / "imports", Store(str(tmp_path))
    first, more = rows(range(ROWS)), rows(range(ROWS, 2 * ROWS))
    with connect(index(server, str(to)), store) as client:
        result = synced(client, store, "imported", first, first)
        assert (result.imported, result.upserted, result.verified, result.repaired) == (ROWS, ROWS, ROWS, 0)
        hit = client.search("imported", field="dense", query=vector(7), limit=1, fields=["text", "modified_at"])[0]
        upserted = rows([7])
        assert hit[1]["chunk_id"] == chunk_id(7)
        assert hit[1]["text"] == upserted["text"][0].as_py()
        assert hit[1]["modified_at"] == upserted["modified_at"][0].as_py().timestamp() * 1_000
        assert not list(to.rglob("*.parquet"))
        result = synced(client, store, "imported", pa.concat_tables([first, more]), more)
        assert (result.imported, result.upserted, result.count) == (0, ROWS, 2 * ROWS)


def test_few_rows_are_upserted(tmp_path: Path, server: Server) -> None:
    store, few = Store(str(tmp_path)), rows(range(ROWS - 1))
    with connect(index(server, str(tmp_path / "imports")), store) as client:
        result = synced(client, store, "few", few, few)
    assert (result.imported, result.upserted) == (0, ROWS - 1)


def test_files_that_the_server_cannot_read_are_upserted_and_the_log_says_why(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files go to a bucket; this server looks for them in folders of its own."""
    for name, value in services.AWS.items():
        monkeypatch.setenv(name, value)
    with services.s3_server(tmp_path / "s3", ["milvus"]) as url:
        store, wanted = Store(str(tmp_path), S3Config(endpoint_url=url)), rows(range(ROWS))
        with connect(index(server, "s3://milvus/imports"), store) as client:
            result = synced(client, store, "refused", wanted, wanted)
        assert (result.imported, result.repaired, result.count) == (0, ROWS, ROWS)
        assert "rows are upserted, because they were not imported: " in caplog.text
        assert services.s3_client(url).list_objects_v2(Bucket="milvus")["KeyCount"] == 0


def test_a_run_that_is_killed_after_its_import_leaves_no_row_twice(tmp_path: Path, server: Server) -> None:
    one = platform(tmp_path, server, bulk_import={"to": str(tmp_path / "imports"), "min_rows": 1})
    crashed = one.start("run", RAG_CRASH_AT="index.after_import")
    crashed.join(240)
    assert crashed.exitcode != 0
    one.run()
    counted, listed = one.milvus()
    assert counted == len(listed) == len(set(listed)) == len(TEXTS)
    assert one.rag("verify").returncode == 0
