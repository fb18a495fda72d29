"""The pipeline on a real, segment-based Milvus server: the one of the package `milvus`, which has no sparse vectors."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rag_core.index.client import connect
from rag_core.stages.publication import latest_manifest
from tests.integration.milvus_helpers import TEXTS, Server, platform, started
from tests.integration.pipeline_helpers import search_json

pytestmark = [pytest.mark.milvus_server, pytest.mark.slow]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with started(tmp_path_factory.mktemp("milvus")) as made:
        yield made


def test_words_are_refused_by_name_and_version(tmp_path: Path, server: Server) -> None:
    refused = platform(tmp_path, server, lexical=True).rag("run")
    assert refused.returncode != 0
    assert "index.lexical: Milvus standalone 2.3.5 has no sparse vectors" in refused.stderr
    doctor = platform(tmp_path, server, lexical=True).rag("doctor")
    assert doctor.returncode == 1
    assert "index.lexical: Milvus standalone 2.3.5 has no sparse vectors" in doctor.stdout


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
