"""A fault in one partition: the stage behind leaves it as it was, the partition beside goes on, and people are told."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rag_core import ids
from rag_core.quality.frames import raw_batches
from rag_core.quality.results import failing_rows
from rag_core.quality.running import run_tests
from rag_core.quality.validations import load
from rag_core.tables.delta import SCHEMAS, TableSlice
from tests.integration.pipeline_helpers import Platform
from tests.unit.quality.tables import write

pytestmark = pytest.mark.milvus

BAD, GOOD = "notes__00", "notes__01"


def note(corpus: Path, partition: str, number: int) -> str:
    """Write a note whose document falls into the partition, and return its name."""
    tries = (f"note{number}-{extra}.md" for extra in range(1000))
    name = next(one for one in tries if ids.partition_key("notes", bucket(one), 2) == partition)
    (corpus / name).write_text(f"# Note {number}\n\nThe {partition} crate {number} holds spare part Z{number}.\n")
    return name


def bucket(name: str) -> int:
    return ids.bucket_of(ids.doc_id("notes", name), 2)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    root = tmp_path_factory.mktemp("quality")
    corpus = root / "corpus"
    corpus.mkdir()
    for number in range(4):
        note(corpus, BAD, number)
        note(corpus, GOOD, number)
    prepared = Platform(root / "platform", [{"name": "notes", "kind": "files", "root": str(corpus)}])
    prepared.run()
    yield prepared
    prepared.stop()


def uris(platform: Platform, table: str) -> set[str]:
    return {row["uri"].rsplit("/", 1)[1] for row in TableSlice.newest(platform.store, table).read(["uri"]).to_pylist()}


def documents(platform: Platform) -> list[dict[str, Any]]:
    batches = raw_batches(TableSlice.newest(platform.store, "documents", [BAD]), SCHEMAS["documents"].names)
    rows: list[dict[str, Any]] = [row for batch in batches for row in batch.to_pylist()]
    return rows


def test_good_tables_pass_and_are_tested_once(platform: Platform) -> None:
    done = platform.rag("test")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " WARN=0 ERROR=0 " in done.stdout
    again = platform.rag("test", "--json")
    assert again.returncode == 0
    lines = [json.loads(line) for line in again.stdout.splitlines()]
    assert {line["reused"] for line in lines} == {True}
    assert {line["table"] for line in lines} >= {"documents", "chunks", "embeddings", "index_partitions"}


def test_fault_holds_its_partition_back_and_no_other(platform: Platform) -> None:
    corpus = Path(platform.sources[0]["root"])
    before = documents(platform)
    write(platform.store, "documents", [{**before[0], "access_label": None}, *before[1:]])
    late, fresh = note(corpus, BAD, 10), note(corpus, GOOD, 10)
    platform.rag("run")
    assert {late, fresh} <= uris(platform, "documents")
    assert fresh in uris(platform, "chunks")
    assert late not in uris(platform, "chunks")

    done = platform.rag("test", "--select", "documents")
    assert done.returncode == 1
    assert "ERROR documents.not_null__access_label" in done.stdout
    assert f"{BAD}, held back: 1 of 5 rows fail" in done.stdout
    assert GOOD not in done.stdout

    results = run_tests(TableSlice.newest(platform.store, "documents"), platform.config, run_id="here")
    [failed] = [result for result in results if result.outcome != "pass"]
    assert failed.reused
    assert [row["key"] for row in failing_rows(platform.store, [failed.result_id])] == [before[0]["doc_id"]]
    kept = load(platform.store, failed.run_id)
    assert any(not one["success"] for name, one in kept.items() if name.endswith(BAD))

    mended = [{**row, "access_label": before[0]["access_label"]} for row in documents(platform)]
    write(platform.store, "documents", mended)
    platform.run()
    assert late in uris(platform, "chunks")
    assert platform.rag("test").returncode == 0
