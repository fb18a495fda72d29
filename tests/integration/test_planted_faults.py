"""Twenty planted faults: each is caught by its name, by nothing else, and the partitions beside go on as before."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from rag_core.index import lite_server
from rag_core.retrieval.retriever import open_retriever
from rag_core.stages.publication import STAGE_TABLES
from tests.fault_looks import in_verdict
from tests.fault_world import BESIDE, HERE, World, failed_tests, passages, write_records
from tests.integration.pipeline_helpers import Platform
from tests.planted_faults import FAULTS, Fault

pytestmark = pytest.mark.milvus

NEW = {f"new-{number}": f"The quokka of enclosure {number} is fed at {number} past noon." for number in range(20)}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform that has run once: three partitions of some 80 documents each, judged and published."""
    root = tmp_path_factory.mktemp("faults")
    write_records(root / "notes.jsonl", {str(number): text for number, text in enumerate(passages())})
    sources = [{"name": "notes", "kind": "jsonl", "root": str(root / "notes.jsonl"), "buckets": 3}]
    settings = {"evaluation": {"samples": 10, "known_items": 60}, "index": {"lite_idle_s": 5.0}}
    prepared = Platform(root / "platform", sources, settings)
    prepared.run()
    yield prepared
    prepared.stop()


@pytest.fixture(scope="module")
def good(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The platform's store as it was published, with a good result of every test as history."""
    published = World.of(platform.config)
    assert {(one.table, one.test, one.outcome) for one in published.test() if one.outcome != "pass"} == set()
    lite_server.stop(lite_server.lite_files(published.store))
    return published.copy(tmp_path_factory.mktemp("good"))


@pytest.fixture
def world(good: World, tmp_path: Path) -> Iterator[World]:
    """A copy to be damaged."""
    copied = good.copy(tmp_path / "store")
    yield copied
    copied.remove()


def test_nothing_is_found_where_nothing_is_planted(world: World) -> None:
    with world.client() as client:
        assert in_verdict(world, client) == {}
    measured = {(one.table, one.test): one for one in world.test(force=True) if one.partition_key == HERE}
    for fault in FAULTS:
        if fault.place in STAGE_TABLES:  # it passes because it was tested, not because there was nothing to test
            assert measured[fault.place, fault.caught_by].value is not None, fault.name
            assert "nothing to compare" not in measured[fault.place, fault.caught_by].threshold, fault.name


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_fault_is_caught_by_name(fault: Fault, world: World) -> None:
    files = world.files_beside()
    with nullcontext() if fault.place in STAGE_TABLES else world.client() as client:
        held = world.index_beside(client) if client else {}
        fault.damage(world, client)
        found = fault.look(world, client)
        assert {place: set(names) for place, names in found.items()} == fault.expected
        assert fault.rows is None or fault.caught_rows(found) == fault.rows
        assert fault.healthy is None or fault.healthy(world, client) == {}
        assert world.files_beside() == files
        assert client is None or world.index_beside(client) == held
    for table in STAGE_TABLES:
        gate = world.gate(table)
        assert set(gate.passed) >= set(BESIDE)
        if table == fault.place:
            reasons = gate.held.get(HERE, ())
            assert any(reason.startswith(f"{fault.caught_by}: ") for reason in reasons) is fault.blocks


def test_a_held_partition_does_not_hold_up_the_others(platform: Platform, good: World) -> None:
    """In one packed run: the damaged partition keeps its rows, the others take new documents; mended, it goes on."""
    served = World(platform.config, good.generation)
    rows, ledger, vectors = (served.rows(table) for table in ("chunks", "index_partitions", "embeddings"))
    served.put("chunks", [rows[0] | {"text": None}, *rows[1:]])
    write_records(Path(platform.sources[0]["root"]), NEW, append=True)
    done = platform.rag("run")
    assert done.returncode == 1
    said = " ".join(done.stderr.split())
    assert f"failed embeddings of {HERE} held back, its rows stay as they are" in said
    assert not any(key in said for key in BESIDE)
    parsed = served.slice("documents").read(["external_id", "partition_key"]).to_pylist()
    waiting = {row["external_id"] for row in parsed if row["partition_key"] == HERE} & NEW.keys()
    assert waiting
    reason = f"not_null__text: text is never missing. 1 of {len(rows) + len(waiting)} rows fail, expected no null"
    assert f"{reason}; for example {rows[0]['chunk_id']}" in said
    assert found_by_word(platform) == NEW.keys() - waiting
    assert (served.rows("index_partitions"), served.rows("embeddings")) == (ledger, vectors)
    with served.client() as client:
        assert client.count(served.generation.collection, HERE) == len(ledger)
    mended = [rows[0] if row["chunk_id"] == rows[0]["chunk_id"] else row for row in served.rows("chunks")]
    served.put("chunks", mended)
    figures = platform.run()
    assert (figures["parsed"], figures["upserted"]) == (0, len(waiting))
    assert found_by_word(platform) == NEW.keys()
    assert failed_tests(served.test()) == {}


def found_by_word(platform: Platform) -> set[str | None]:
    """Search what is served for a word that only the new documents have."""
    with open_retriever(platform.config) as retriever:
        return {hit.external_id for hit in retriever.search("quokka", mode="bm25", top_k=100)}
