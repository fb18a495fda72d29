"""The pipeline on a real, segment-based Milvus server: the one of the package `milvus`, which has no sparse vectors."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from rag_core.index.client import connect
from rag_core.stages.publication import latest_manifest
from tests.integration.pipeline_helpers import Platform, search_json
from tests.production import services

pytestmark = [pytest.mark.milvus_server, pytest.mark.slow]

TEXTS = {
    "refunds": "A refund may be paid within thirty days of the purchase, by the clerk of the branch.",
    "printers": "Printers are repaired by the workshop. Call extension 4417 before noon.",
    "invoices": "Invoices of March are kept in the blue cabinet until the auditors have gone.",
    "parking": "Bicycles are parked behind the boiler house, motor cars in the eastern yard.",
}


class Server:
    """The standalone server, which can be killed and comes back with what it had."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: Any = None
        self.uri = ""

    def start(self) -> None:
        port = self.uri.rpartition(":")[2]
        self._running = services.milvus(self._folder, port=int(port) if port else 0)
        self.uri = self._running.__enter__()

    def stop(self) -> None:
        self._running.__exit__(None, None, None)

    def kill(self) -> None:
        """Kill the server itself, not the program that started it."""
        for process in psutil.process_iter(["cmdline"]):
            if f"{self._folder}/milvus/bin/milvus" in (process.info["cmdline"] or ()):
                process.kill()
        self.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    pytest.importorskip("milvus", reason="the package `milvus` with the standalone server is not installed")
    made = Server(tmp_path_factory.mktemp("milvus"))
    made.start()
    yield made
    made.stop()


def platform(folder: Path, server: Server, **index: Any) -> Platform:
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for name, text in TEXTS.items():
        (corpus / f"{name}.md").write_text(f"# {name.title()}\n\n{text}\n")
    settings = {"uri": server.uri, "lexical": False, "alias": folder.name.replace("-", "_"), "timeout_s": 90, **index}
    return Platform(folder / "rag", [{"name": "office", "kind": "files", "root": str(corpus)}], {"index": settings})


def test_words_are_refused_by_name_and_version(tmp_path: Path, server: Server) -> None:
    refused = platform(tmp_path, server, lexical=True).rag("run")
    assert refused.returncode != 0
    assert "index.lexical: Milvus standalone 2.3.5 has no sparse vectors" in refused.stderr


def test_the_whole_pipeline(tmp_path: Path, server: Server) -> None:
    one = platform(tmp_path, server, index_type="IVF_SQ8", build_params={"nlist": 4})
    assert one.run()["upserted"] == len(TEXTS)
    assert one.run()["commits"] == 0
    for mode in ("dense", "hybrid"):
        assert "4417" in search_json(one, "who repairs printers", mode)[0]["text"]
    words = one.rag("search", "printers", "--mode", "bm25")
    assert words.returncode == 2
    assert "index.lexical is false" in words.stderr
    modes = {row["mode"] for row in json.loads(one.rag("eval", "--json").stdout)}
    assert modes == {"dense", "hybrid"}
    assert one.rag("verify").returncode == 0
    counted, listed = one.milvus()
    assert counted == len(listed) == len(TEXTS)

    # A document that is deleted is not found by id nor by vector, on a server that keeps deleted rows in its segments.
    (tmp_path / "corpus" / "printers.md").unlink()
    assert one.run(accept_deletions=True)["deleted"] == 1
    assert not any("4417" in hit["text"] for hit in search_json(one, "who repairs printers", "dense"))
    assert one.milvus()[0] == len(TEXTS) - 1


def test_a_server_that_is_killed_in_the_middle_of_an_upsert(tmp_path: Path, server: Server) -> None:
    one = platform(tmp_path, server, timeout_s=5)
    corpus = tmp_path / "corpus"
    for number in range(20):
        (corpus / f"note{number}.md").write_text(
            f"# Note {number}\n\nShelf {number} holds the files of year {1900 + number}.\n"
        )
    # The run is killed right after the first upsert of a partition was acknowledged, and the server with it.
    crashed = one.start("run", RAG_CRASH_AT="index.mid_upsert")
    crashed.join(240)
    assert crashed.exitcode != 0
    server.kill()
    server.start()
    one.run()
    counted, listed = one.milvus()
    assert counted == len(listed) == len(set(listed)) == len(TEXTS) + 20
    assert sorted(listed) == sorted(row[1] for row in one.tables()["index_partitions"])
    assert one.rag("verify").returncode == 0


def test_a_read_of_a_moment_sees_what_was_written_before(tmp_path: Path, server: Server) -> None:
    one = platform(tmp_path, server)
    one.run()
    manifest = latest_manifest(one.store)
    assert manifest is not None
    with connect(one.config.index, one.store) as client:
        assert client.capabilities.kind == "standalone"
        ids = client.list_ids(manifest.collection)
        for chunk_id in ids:
            # Deletes of one moment, each followed by a read of that moment: it must not find the row any more.
            for key in ("office__00", "office__01"):
                client.delete(manifest.collection, key, [chunk_id])
            assert client.fetch(manifest.collection, None, [chunk_id], (), time.time()) == {}
        with client.settled():
            assert client.fetch(manifest.collection, None, ids, ()) == {}
