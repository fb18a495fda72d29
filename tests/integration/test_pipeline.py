"""The main job on real input, as a user runs it: only the difference is done, and what is gone is not found."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rag_core.index.client import connect
from rag_core.retrieval.filters import SearchFilters
from rag_core.retrieval.retriever import open_retriever
from rag_core.stages.publication import latest_manifest
from tests.conftest import REPO
from tests.integration.pipeline_helpers import Platform, search_json

pytestmark = pytest.mark.milvus

NOTHING = dict.fromkeys(
    ("parsed", "rejected", "chunks", "embedded", "reused", "upserted", "deleted", "repaired", "commits"), 0
)  # fmt: skip


def without_seconds(figures: dict) -> dict:
    return {name: value for name, value in figures.items() if name in NOTHING}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    root = tmp_path_factory.mktemp("pipeline")
    corpus = root / "corpus"
    shutil.copytree(REPO / "examples" / "corpus" / "handbook", corpus)
    for number in range(20):
        folder = corpus / "inventory"
        folder.mkdir(exist_ok=True)
        (folder / f"item{number:02d}.md").write_text(
            f"# Item {number}\n\nThe quokka crate number {number} holds spare part Z{number}.\n\n"
            f"## Storage\n\nShelf {number}, room {number * 3}.\n"
        )
    prepared = Platform(root / "platform", [{"name": "handbook", "kind": "files", "root": str(corpus)}])
    yield prepared
    prepared.stop()


def corpus_of(platform: Platform) -> Path:
    return Path(platform.sources[0]["root"])


def test_first_run_makes_every_table_and_publishes(platform: Platform) -> None:
    figures = platform.run()
    assert figures["parsed"] >= 29
    assert figures["chunks"] == figures["upserted"] > 29
    assert figures["commits"] == 5
    manifest = latest_manifest(platform.store)
    assert manifest is not None
    assert platform.milvus() == (manifest.chunks, [row[1] for row in platform.tables()["index_partitions"]])


def test_second_run_does_nothing(platform: Platform) -> None:
    assert without_seconds(platform.run()) == NOTHING


@pytest.mark.parametrize("mode", ["dense", "bm25", "hybrid"])
def test_search_cites_the_right_document(platform: Platform, mode: str) -> None:
    hits = search_json(platform, "quokka crate number 7 spare part Z7", mode)
    assert hits[0]["uri"].endswith("/inventory/item07.md")
    assert set(hits[0]) >= {"chunk_id", "doc_id", "external_id", "uri", "title", "score", "text", "span"}
    rows = platform.rag("inspect", "documents", "--uri", "item07.md", "--json", "--text").stdout
    text = json.loads(rows)["text"]
    start, end = hits[0]["span"]
    assert text[start:end] == hits[0]["text"]


def test_ask_quotes_and_cites(platform: Platform) -> None:
    reply = json.loads(platform.command("ask", "What does quokka crate number 7 hold?", "--json").stdout)
    assert reply["found"]
    assert "Z7" in reply["text"]
    assert reply["citations"][0]["uri"].endswith("item07.md")


def test_changed_document_embeds_only_changed_text(platform: Platform) -> None:
    path = corpus_of(platform) / "inventory" / "item03.md"
    path.write_text(path.read_text().replace("Shelf 3", "Shelf 333"))
    figures = platform.run()
    assert (figures["parsed"], figures["chunks"], figures["embedded"], figures["deleted"]) == (1, 1, 1, 1)
    # A fresh row must not rank below old ones for a rare word, whatever segment of the index it lies in.
    assert search_json(platform, "Shelf 333", "bm25")[0]["uri"].endswith("item03.md")


def test_touched_document_embeds_nothing(platform: Platform) -> None:
    os.utime(corpus_of(platform) / "inventory" / "item04.md", (1_700_000_000, 1_700_000_000))
    figures = platform.run()
    assert (figures["parsed"], figures["embedded"], figures["deleted"]) == (1, 0, 0)


def test_renamed_folder_calls_no_model(platform: Platform) -> None:
    (corpus_of(platform) / "inventory").rename(corpus_of(platform) / "stock")
    refused = platform.rag("run", "--json")  # it is most of the source: the folder may not be mounted
    assert refused.returncode != 0
    assert "20 of" in refused.stderr
    assert "--accept-deletions" in refused.stderr
    figures = platform.run(accept_deletions=True)
    assert (figures["parsed"], figures["embedded"]) == (20, 0)
    assert figures["upserted"] == figures["deleted"] > 0
    assert "/stock/" in search_json(platform, "quokka crate number 7", "dense")[0]["uri"]


def test_deleted_document_is_not_found(platform: Platform) -> None:
    path = corpus_of(platform) / "stock" / "item09.md"
    question = "The quokka crate number 9 holds spare part Z9."
    doomed = search_json(platform, question, "bm25")[0]
    assert doomed["uri"].endswith("item09.md")
    path.unlink()
    figures = platform.run()
    assert figures["deleted"] >= 1
    with open_retriever(platform.config) as retriever:
        for mode in ("dense", "bm25", "hybrid"):
            found = retriever.search(question, mode=mode, top_k=100)
            assert doomed["doc_id"] not in {hit.doc_id for hit in found}
        assert not retriever.search(question, mode="dense", filters=SearchFilters(doc_ids=[doomed["doc_id"]]))
    with connect(platform.config.index, platform.store) as client:
        collection = latest_manifest(platform.store).collection
        assert client.fetch(collection, None, [doomed["chunk_id"]], ()) == {}


def test_rejected_document_has_a_reason_and_stops_nothing(platform: Platform) -> None:
    (corpus_of(platform) / "broken.pdf").write_bytes(b"%PDF-1.7\nnothing that follows is a PDF")
    figures = platform.run()
    assert figures["rejected"] == 1
    row = json.loads(platform.rag("inspect", "documents", "--status", "rejected", "--json").stdout)
    assert row["uri"].endswith("broken.pdf")
    assert row["reason"]


def test_questions_are_embedded_by_the_served_model_whatever_rag_yaml_asks_for(platform: Platform) -> None:
    question = "quokka crate number 7 spare part Z7"
    expected = [hit["chunk_id"] for hit in search_json(platform, question, "dense")]
    done = platform.rag("search", question, "--mode", "dense", "--json", RAG_EMBEDDING__QUERY_PREFIX="query: ")
    assert done.returncode == 0, done.stderr
    assert [hit["chunk_id"] for hit in json.loads(done.stdout)] == expected


def test_missing_source_deletes_nothing(platform: Platform) -> None:
    corpus = corpus_of(platform)
    before = platform.tables()
    corpus.rename(corpus.with_name("away"))
    try:
        done = platform.rag("run", "--json")
        assert done.returncode != 0
        assert str(corpus) in done.stderr
    finally:
        corpus.with_name("away").rename(corpus)
    assert platform.tables() == before


def test_vectors_have_unit_length(platform: Platform) -> None:
    matrix = np.array(list(platform.vectors().values()))
    assert np.allclose(np.linalg.norm(matrix, axis=1), 1, atol=1e-3)


def test_document_rejected_by_a_limit_is_tried_again_when_the_limit_moves(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "long.md").write_text("# Long\n\n" + "A sentence of some length. " * 200)
    source = {"name": "notes", "kind": "files", "root": str(corpus)}
    small = Platform(tmp_path / "platform", [{**source, "max_bytes": 1_000}])
    for _ in range(2):
        assert small.rag("run", "--stage", "documents").returncode == 0
        assert [row[2] for row in small.tables()["documents"]] == ["rejected"]
    large = Platform(tmp_path / "platform", [source])
    assert large.rag("run", "--stage", "documents").returncode == 0
    assert [row[2] for row in large.tables()["documents"]] == ["ok"]


def test_failing_source_does_not_hold_up_the_others(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "note.md").write_text("# Note\n\nThe quokka crate is on shelf 7.\n")
    broken = {"name": "away", "kind": "s3", "bucket": "documents", "endpoint_url": "http://127.0.0.1:9"}
    good = {"name": "notes", "kind": "files", "root": str(corpus)}
    platform = Platform(tmp_path / "platform", [broken, good])
    nowhere = {"AWS_CONFIG_FILE": "/nowhere", "AWS_SHARED_CREDENTIALS_FILE": "/nowhere"}
    done = platform.rag("run", "--json", AWS_EC2_METADATA_DISABLED="true", **nowhere)  # no credentials: permanent
    assert done.returncode == 1
    assert "away" in done.stderr
    assert json.loads(done.stdout)["upserted"] == 1
    assert search_json(platform, "quokka", "bm25")[0]["source"] == "notes"
    platform.stop()


def test_other_buckets_and_a_removed_source_leave_nothing_behind(tmp_path: Path) -> None:
    sources = []
    for name in ("alpha", "beta"):
        folder = tmp_path / name
        folder.mkdir()
        for number in range(9):
            (folder / f"{number}.md").write_text(f"# {name} {number}\n\nThe {name} note number {number}.\n")
        sources.append({"name": name, "kind": "files", "root": str(folder)})
    for buckets in (2, 4, 3):  # more, then fewer
        changed = Platform(tmp_path / "platform", sources, {"buckets": buckets})
        changed.run()
    fresh = Platform(tmp_path / "fresh", sources, {"buckets": 3})
    fresh.run()
    assert changed.tables() == fresh.tables()
    assert changed.milvus() == fresh.milvus()
    fresh.stop()
    alone = Platform(tmp_path / "platform", sources[:1], {"buckets": 3})
    alone.run()
    assert len(alone.tables()["documents"]) == len(alone.milvus()[1]) == 9
    assert {hit["source"] for hit in search_json(alone, "beta note number 3", "bm25")} <= {"alpha"}
    alone.stop()


@pytest.mark.spark
@pytest.mark.slow
def test_spark_and_process_make_the_same_rows(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(REPO / "examples" / "corpus", corpus)
    sources = [{"name": "handbook", "kind": "files", "root": str(corpus)}]
    by_engine = {}
    for name, limit in (("process", 10_000), ("spark", 0)):
        settings = {"spark": {"in_process_max_objects": limit, "master": "local[2]"}}
        own = Platform(tmp_path / name, sources, settings)
        for stage in ("documents", "chunks"):
            done = own.rag("run", "--stage", stage, "--json")
            assert done.returncode == 0, done.stderr
        by_engine[name] = {table: own.tables()[table] for table in ("documents", "chunks")}
        own.stop()
    assert by_engine["spark"] == by_engine["process"]
    assert len(by_engine["spark"]["chunks"]) > 100
