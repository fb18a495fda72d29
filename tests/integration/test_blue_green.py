"""One index takes the place of another: asked for, judged, switched, gone back from, collected; on the real command.

The tests follow the life of one store and build on each other.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rag_core.embedding.encoder import make_encoder
from rag_core.retrieval.retriever import open_retriever
from rag_core.stages.publication import manifests
from rag_core.stages.verdict import newest_verdict
from tests.integration.blue_green_helpers import (
    Records,
    collections,
    configure,
    count_chunks,
    external_ids,
    found,
    held,
    lanes,
    publications,
    served,
    target,
    text_of,
    versions,
)
from tests.integration.embedding_server import projected, serving
from tests.integration.pipeline_helpers import Platform

pytestmark = [pytest.mark.milvus, pytest.mark.slow]

EVALUATION = {"samples": 10, "known_items": 20, "max_latency_ratio": 50}
FIRST: dict[str, Any] = {"evaluation": EVALUATION, "chunking": {"max_tokens": 100}}
SHORTER: dict[str, Any] = {**FIRST, "embedding": {"max_tokens": 128}}
GRAPH: dict[str, Any] = {**SHORTER, "index": {"index_type": "HNSW"}}
FINER: dict[str, Any] = {**GRAPH, "chunking": {"max_tokens": 60}}
SECRET = "key-that-must-not-be-kept"


def one_line(text: str) -> str:
    """Undo the wrapping of the console."""
    return " ".join(text.split())


class Life:
    """The store, its documents, and the collections in the order of their publication."""

    def __init__(self, root: Path) -> None:
        self.records = Records(root / "docs.jsonl", 16)
        self.platform = Platform(root / "platform", [self.records.source], FIRST)
        self.collections: list[str] = []


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    prepared = Life(tmp_path_factory.mktemp("blue_green"))
    prepared.platform.run()
    prepared.collections.append(served(prepared.platform).collection)
    yield prepared
    prepared.platform.stop()


def test_unasked_model_change_is_refused_and_the_served_index_takes_changes(life: Life) -> None:
    platform = life.platform = configure(life.platform, SHORTER)
    life.records.put("newcomer", "The zeppelin mooring mast was repainted by apprentice Quill.")
    life.records.remove("doc03")
    done = platform.rag("run", "--json")
    assert done.returncode == 1
    said = one_line(done.stderr)
    assert "embedding.max_tokens null -> 128" in said
    assert "rag run --rebuild" in said
    assert served(platform).collection == life.collections[0] != target(platform)
    assert found(platform, "zeppelin mooring mast", "dense")[0] == "newcomer"
    assert "doc03" not in found(platform, text_of(3))
    assert "doc03" not in external_ids(platform, life.collections[0])
    assert newest_verdict(platform.store, target(platform)) is None


def test_plan_says_what_would_be_done_and_changes_nothing(life: Life) -> None:
    platform = life.platform
    before = versions(platform), collections(platform)
    plan = json.loads(platform.rag("plan", "--json").stdout)
    assert plan["refused"]
    assert plan["changed_settings"] == ["embedding.max_tokens null -> 128"]
    old, new = plan["indexes"]
    assert (old["collection"], old["served"], old["texts_to_embed"]) == (life.collections[0], True, 0)
    assert (new["collection"], new["served"], new["reembed_share"]) == (target(platform), False, 1.0)
    # The chunks are shared, because the tokenizer is the same: nothing is cut.
    assert (new["documents_to_cut"], new["is_estimate"]) == (0, False)
    assert new["rows_to_write"] == new["texts_to_embed"] == len(held(platform, life.collections[0]))
    assert new["seconds"]["embed"] > 0
    assert "`rag run` refuses" in one_line(platform.rag("plan").stdout)
    assert (versions(platform), collections(platform)) == before


def test_rebuild_judges_switches_once_and_keeps_the_old_collection(life: Life) -> None:
    platform, old = life.platform, life.collections[0]
    before = held(platform, old)
    figures = platform.run(rebuild=True)
    assert figures["chunks"] == 0
    assert figures["embedded"] == figures["upserted"] == len(before)
    manifest = served(platform)
    life.collections.append(manifest.collection)
    assert manifest.collection == target(platform)
    assert publications(platform, manifest.collection) == 1
    assert held(platform, old) == held(platform, manifest.collection) == before
    verdict = newest_verdict(platform.store, manifest.collection)
    assert verdict is not None
    assert (verdict.passed, verdict.against, verdict.reasons) == (True, old, ())
    assert {"ann", "relevance", "regression", "comparison", "entropy"} <= set(verdict.measures)
    assert len(lanes(platform)["chunks"]) == 1
    assert len(lanes(platform)["embeddings"]) == 2
    platform.run()
    assert publications(platform, manifest.collection) == 1


def test_changes_of_a_built_index_are_no_rebuilding(life: Life) -> None:
    """Ordinary changes after the publication; the collection before it does not take them."""
    life.records.remove("doc05")
    life.records.put("doc06", life.records.text("doc06"), "auditors")
    life.records.put("doc07", "The observatory dome is greased by Marguerite with rapeseed oil.")
    life.platform.run()
    assert served(life.platform).collection == life.collections[1]


def test_rollback_is_one_command_and_shows_nothing_that_must_not_be_found(life: Life) -> None:
    platform, (old, new) = life.platform, life.collections
    done = platform.rag("rollback")
    assert done.returncode == 0, done.stderr
    assert (served(platform).collection, served(platform).rolled_back_from) == (old, new)
    there = external_ids(platform, old)
    assert not there & {"doc03", "doc05", "doc06"}, "gone, or readable by others than when they were indexed"
    assert "doc05" not in found(platform, text_of(5))
    assert found(platform, text_of(8), "hybrid")[0] == "doc08"
    assert held(platform, old)  # and the ledger agrees
    again = platform.rag("rollback")
    assert again.returncode != 0
    assert "no collection published before" in one_line(again.stderr)
    assert served(platform).collection == old


def test_run_brings_the_old_one_up_to_date_and_does_not_publish_the_other(life: Life) -> None:
    platform, (old, new) = life.platform, life.collections
    life.records.put("latecomer", "The aqueduct sluice is opened by warden Hobb on feast days.")
    done = platform.rag("run", "--json")
    assert done.returncode == 1
    assert "rolled back from" in one_line(done.stderr)
    assert served(platform).collection == old
    assert held(platform, old) == held(platform, new)
    assert external_ids(platform, old) >= {"doc06", "latecomer"}
    assert found(platform, "observatory dome rapeseed", "hybrid")[0] == "doc07"
    asked = platform.rag("publish")
    assert asked.returncode == 1
    assert "rolled back from" in one_line(asked.stderr)
    assert served(platform).collection == old


def test_publish_again(life: Life) -> None:
    done = life.platform.rag("publish", "--again")
    assert done.returncode == 0, done.stderr
    manifest = served(life.platform)
    assert (manifest.collection, manifest.rolled_back_from) == (life.collections[1], None)
    assert found(life.platform, "aqueduct sluice", "hybrid")[0] == "latecomer"


def test_other_index_type_embeds_and_cuts_nothing(life: Life) -> None:
    platform = life.platform = configure(life.platform, GRAPH)
    figures = platform.run()
    assert (figures["chunks"], figures["embedded"], figures["reused"]) == (0, 0, 0)
    manifest = served(platform)
    assert (manifest.collection, manifest.index_type) == (target(platform), "HNSW")
    verdict = newest_verdict(platform.store, manifest.collection)
    assert verdict is not None
    assert json.loads(manifest.search_params) == dict(verdict.search_params)
    assert verdict.search_params["ef"] > 0
    assert manifest.ann_recall_at_10 == verdict.ann_recall_at_10 >= 0.95
    with open_retriever(platform.config) as retriever:
        assert retriever.target.search_params == verdict.search_params
        assert retriever.search(text_of(8), mode="dense")[0].external_id == "doc08"
    assert held(platform, manifest.collection) == held(platform, life.collections[1])
    life.collections.append(manifest.collection)


def test_old_collections_leave_nothing(life: Life) -> None:
    """One collection is kept beside the served one; the first has gone with its ledger and vectors."""
    platform, (first, second, third) = life.platform, life.collections
    assert collections(platform) == {second, third}
    there = lanes(platform)
    assert there["index_partitions"] == {second, third}
    assert len(there["embeddings"]) == len(there["chunks"]) == 1
    assert not (platform.root / "data" / "work" / "index" / first).exists()


def test_other_chunking_has_a_lane_of_its_own(life: Life) -> None:
    platform = life.platform = configure(life.platform, FINER)
    coarse = served(platform).chunk_lane
    platform.run(rebuild=True)
    manifest = served(platform)
    life.collections.append(manifest.collection)
    assert lanes(platform)["chunks"] == {coarse, manifest.chunk_lane}
    assert count_chunks(platform, manifest.chunk_lane) == manifest.chunks > count_chunks(platform, coarse)
    assert collections(platform) == set(life.collections[2:])
    assert found(platform, "aqueduct sluice", "hybrid")[0] == "latecomer"


def test_endpoint_that_is_down_keeps_no_change_from_what_is_served(life: Life) -> None:
    good = served(life.platform)
    down = {"backend": "openai", "model": "down", "base_url": "http://127.0.0.1:9/v1", "dim": 4, "max_tokens": 128}
    platform = life.platform = configure(life.platform, {**FINER, "embedding": {**down, "max_retries": 0}})
    life.records.put("mariner", "The lighthouse fog signal is tested by Captain Ysolde on Mondays.")
    done = platform.rag("run", "--rebuild", "--json")
    assert done.returncode == 1
    assert f"{target(platform)} is not built" in one_line(done.stderr)
    assert served(platform).collection == good.collection
    assert found(platform, "lighthouse fog signal", "hybrid")[0] == "mariner"
    assert platform.rag("abandon").returncode == 0
    assert target(platform) not in collections(platform)
    life.platform = configure(platform, FINER)


def test_bad_model_is_refused_with_reasons(life: Life) -> None:
    good = served(life.platform)
    real = make_encoder(life.platform.config.embedding)
    with serving(projected(lambda texts: real.embed(list(texts), "passage"), 4)) as address:
        bad = {"backend": "openai", "model": "projected", "base_url": address, "dim": 4, "max_tokens": 128}
        platform = life.platform = configure(life.platform, {**FINER, "embedding": bad})
        done = platform.rag("run", "--rebuild", "--json", RAG_EMBEDDING__API_KEY=SECRET)
        assert done.returncode == 1
        verdict = newest_verdict(platform.store, target(platform))
        assert verdict is not None
        assert not verdict.passed
        assert any("dense on known_item queries" in reason and "p = " in reason for reason in verdict.reasons)
        for reason in verdict.reasons:
            assert reason in one_line(done.stderr)
        assert f"{good.collection} serves on" in one_line(done.stderr)
        assert served(platform).collection == good.collection
        assert found(platform, "aqueduct sluice", "dense")[0] == "latecomer"
        # A change still reaches what is served, and the refused one, which is built: that is no rebuilding.
        life.records.put("straggler", "The ferry bell is polished by Ottoline with vinegar.")
        again = platform.rag("run", "--json", RAG_EMBEDDING__API_KEY=SECRET)
        assert again.returncode == 1
        assert "straggler" in external_ids(platform, target(platform))
        assert found(platform, "ferry bell vinegar", "hybrid")[0] == "straggler"
    kept = json.dumps([vars(one) for one in manifests(platform.store)], default=str) + json.dumps(
        verdict.to_row(), default=str
    )
    assert SECRET not in kept
    assert SECRET not in done.stderr + done.stdout


def test_abandoned_index_leaves_nothing_and_serving_is_untouched(life: Life) -> None:
    platform, candidate = life.platform, target(life.platform)
    assert candidate in collections(platform)
    before = served(platform), held(platform, life.collections[-1])
    done = platform.rag("abandon")
    assert done.returncode == 0, done.stderr
    assert candidate in done.stdout
    assert (served(platform), held(platform, life.collections[-1])) == before
    assert collections(platform) == set(life.collections[2:])
    there = lanes(platform)
    assert there["index_partitions"] == set(life.collections[2:])
    assert {table: len(there[table]) for table in ("embeddings", "chunks")} == {"embeddings": 2, "chunks": 2}
    assert not (platform.root / "data" / "work" / "index" / candidate).exists()
    platform = life.platform = configure(platform, FINER)
    platform.run()
    assert served(platform).collection == life.collections[-1]
