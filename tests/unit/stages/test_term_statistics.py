"""Frequencies are counted again when the collection has grown, and not before."""

from pathlib import Path

import pyarrow as pa
import pytest

from rag_core import ids
from rag_core.index.bm25 import term_id
from rag_core.stages import term_statistics
from rag_core.tables.change import TableChange, commit, stage
from rag_core.tables.delta import TableSlice, row_schema
from rag_core.tables.store import Store

KEY = "handbook__00"
LANE = "lane-a"


def add_chunks(store: Store, texts: list[str], lane: str = LANE) -> None:
    rows = [{field.name: _default(field) for field in row_schema("chunks")} for _ in texts]
    for row, text in zip(rows, texts, strict=True):
        row |= {"partition_key": KEY, "chunk_id": ids.digest(text), "doc_id": ids.digest(text, "d"), "text": text}
    batch = pa.RecordBatch.from_pylist(rows, schema=row_schema("chunks"))
    change = TableChange(
        TableSlice.newest(store, "chunks", [KEY], lane=lane), "doc_id", stage(store, "chunks", [batch], lane)
    )
    commit(change, run_id="r")


def _default(field: pa.Field) -> object:
    if field.nullable:
        return None
    return [] if pa.types.is_list(field.type) else 0 if pa.types.is_integer(field.type) else ""


def test_counted_once_and_again_after_growth(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    add_chunks(store, [f"pump number{n}" for n in range(20)])
    first = term_statistics.refresh(store, LANE, run_id="r")
    statistics = term_statistics.load(store, first, LANE)
    assert (statistics.chunks, statistics.frequencies[term_id("pump")]) == (20, 20)
    add_chunks(store, ["valve one"])
    assert term_statistics.refresh(store, LANE, run_id="r") == first, "5 % more chunks change no idf worth a commit"
    add_chunks(store, [f"valve number{n}" for n in range(30, 40)])
    second = term_statistics.refresh(store, LANE, run_id="r")
    assert term_statistics.load(store, second, LANE).frequencies[term_id("valv")] == 11
    assert term_statistics.load(store, first, LANE).chunks == 20, "an older publication keeps its own"


def test_large_collection_is_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(term_statistics, "_SAMPLE_CHUNKS", 100)
    store = Store(str(tmp_path))
    add_chunks(store, [f"pump {'valve' if n % 4 == 0 else ''} {n}" for n in range(1_000)])
    statistics = term_statistics.load(store, term_statistics.refresh(store, LANE, run_id="r"), LANE)
    assert 50 < statistics.chunks < 200
    assert statistics.frequencies[term_id("pump")] == statistics.chunks
    assert 0.1 < statistics.frequencies[term_id("valv")] / statistics.chunks < 0.4


def test_empty_store_has_statistics(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    assert term_statistics.load(store, term_statistics.refresh(store, LANE, run_id="r"), LANE).chunks == 0


def test_lanes_are_counted_apart_and_kept_side_by_side(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    add_chunks(store, ["pump one", "pump two"])
    add_chunks(store, ["valve one"], lane="lane-b")
    term_statistics.refresh(store, LANE, run_id="r")
    newest = term_statistics.refresh(store, "lane-b", run_id="r")
    assert term_statistics.load(store, newest, "lane-b").frequencies.get(term_id("pump")) is None
    assert term_statistics.load(store, newest, LANE).frequencies[term_id("pump")] == 2
