"""Planted faults, each found by the test that is meant for it and by no other, with the partition beside untouched."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rag_core.quality.accepting import begin_anew, jumped
from rag_core.quality.gate import gate
from rag_core.quality.results import Result, failing_rows
from rag_core.quality.running import run_tests
from rag_core.tables.delta import TableSlice
from rag_core.tables.store import Store
from tests.unit.quality.tables import (
    KEY,
    chunk_rows,
    clear,
    config_of,
    document_rows,
    embedding_rows,
    ledger_rows,
    write,
)

OTHER = "wiki__00"
Rows = list[dict[str, Any]]


def good_rows(key: str) -> dict[str, Rows]:
    documents = document_rows(40, key=key)
    chunks = chunk_rows(documents)
    return {
        "documents": documents,
        "chunks": chunks,
        "embeddings": embedding_rows(chunks),
        "index_partitions": ledger_rows(chunks),
    }


def set_value(column: str, value: Any, *rows: int) -> Callable[[Rows], None]:
    def change(listed: Rows) -> None:
        for row in rows or range(80):
            if row < len(listed):
                listed[row][column] = value

    return change


def collapse(listed: Rows) -> None:
    for row in listed[10:60]:
        row["vector"] = listed[0]["vector"]


def repeat_text(listed: Rows) -> None:
    for row in listed[0:40:2]:
        row["text_hash"] = "footer"


FAULTS: list[tuple[str, str, Callable[[Rows], None], set[str], int]] = [
    ("documents", "null text", set_value("text", None, 3), {"not_null__text"}, 1),
    ("documents", "empty text", set_value("text", "", 3, 4), {"text_present"}, 2),
    ("documents", "unknown status", set_value("status", "fine", 5), {"accepted_values__status", "reason_given"}, 1),
    ("documents", "nobody may read", set_value("principals", [], 5), {"principals_present"}, 1),
    ("chunks", "duplicate id", set_value("chunk_id", "twice", 0, 1), {"unique__chunk_id"}, 2),
    ("chunks", "null text", set_value("text", None, 3), {"not_null__text"}, 1),
    ("chunks", "orphan", set_value("doc_id", "gone", 2), {"relationships__doc_id"}, 1),
    ("chunks", "document without chunks", lambda rows: rows.__delitem__(slice(0, 2)), {"documents_have_chunks"}, 1),
    ("chunks", "same place twice", set_value("ordinal", 0, 0, 1), {"unique__doc_id__ordinal"}, 2),
    ("chunks", "empty span", set_value("char_end", 0, 0), {"span_is_valid"}, 1),
    ("chunks", "page 0", set_value("page", 0, 0), {"page_from_one"}, 1),
    ("chunks", "personal data", set_value("text", "Write to jane.roe@example.org", 0), {"pii__text"}, 1),
    ("chunks", "boilerplate", repeat_text, {"boilerplate__text_hash"}, 20),
    ("embeddings", "wrong dimension", set_value("vector", [1.0], 0), {"vector_dim__vector"}, 1),
    ("embeddings", "not a number", set_value("vector", [float("nan")] * 8, 0), {"no_nan__vector"}, 1),
    ("embeddings", "infinite", set_value("vector", [float("inf")] * 8, 0), {"no_nan__vector"}, 1),
    ("embeddings", "zero vector", set_value("vector", [0.0] * 8, 0), {"unit_norm__vector"}, 1),
    ("embeddings", "unnormalised", set_value("vector", [0.5] * 8, 0), {"unit_norm__vector"}, 1),
    ("embeddings", "null vector", set_value("vector", None, 0), {"not_null__vector"}, 1),
    ("embeddings", "collapsed", collapse, {"not_collapsed__vector"}, 51),
    ("embeddings", "two models", set_value("model_fingerprint", "other", 0, 1, 2), {"constant__model_fingerprint"}, 3),
    ("embeddings", "stale text", set_value("text_hash", "old", 0), {"relationships__text_hash"}, 1),
    ("index_partitions", "stale row", set_value("row_hash", "old", 0), {"relationships__row_hash"}, 1),
    ("index_partitions", "row too few", lambda rows: rows.__delitem__(0), {"vectors_are_indexed"}, 1),
]


def failed(results: list[Result], key: str = KEY) -> set[str]:
    return {result.test for result in results if result.partition_key == key and result.outcome != "pass"}


@pytest.mark.slow
@pytest.mark.parametrize("table", ["documents", "chunks", "embeddings", "index_partitions"])
def test_faults_are_found_by_name_and_in_their_partition_only(tmp_path: Path, table: str) -> None:
    store, config = Store(str(tmp_path)), config_of(tmp_path)
    faults = {f"handbook__{number:02d}": fault for number, fault in enumerate(FAULTS) if fault[0] == table}
    listed: dict[str, Rows] = {}
    for key in [*faults, OTHER]:
        rows = good_rows(key)
        if key in faults:
            faults[key][2](rows[table])
        for name in rows:
            listed.setdefault(name, []).extend(rows[name])
    for name, rows in listed.items():
        current = write(store, name, rows)
        if name == table:
            break
    results = run_tests(current, config, run_id="run")
    held = gate(current, config, run_id="gate").held
    assert failed(results, OTHER) == set()
    assert OTHER not in held
    for key, (_, fault, _, expected, count) in faults.items():
        assert failed(results, key) == expected, fault
        found = next(
            one for one in results if one.partition_key == key and one.test in expected and one.outcome != "pass"
        )
        stored = failing_rows(store, [found.result_id])
        assert (fault, found.failing_rows, len(stored)) == (fault, count, count)
        assert [[row["key"], row["value"]] for row in stored][:5] == json.loads(found.examples)
        blocking = any(one.holds_back for one in results if one.partition_key == key)
        assert (key in held) == blocking, fault
        assert not blocking or any(found.test in reason for reason in held[key])


@pytest.mark.slow
def test_half_the_rows_gone_is_held_until_it_is_accepted(tmp_path: Path) -> None:
    store, config = Store(str(tmp_path)), config_of(tmp_path)
    assert gate(write(store, "documents", document_rows(40)), config, run_id="1").held == {}
    halved = write(store, "documents", document_rows(19))
    assert list(gate(halved, config, run_id="2").held) == [KEY]
    assert list(gate(halved, config, run_id="3").held) == [KEY]
    assert failed(run_tests(halved, config, run_id="4")) == {"row_count"}
    run_tests(halved, config, run_id="5", accept=True)
    assert gate(halved, config, run_id="6").held == {}
    assert gate(write(store, "documents", document_rows(18)), config, run_id="7").held == {}


@pytest.mark.slow
def test_what_follows_from_an_accepted_jump_is_not_held_against_history(tmp_path: Path) -> None:
    """Chunks and vectors of documents that were removed on purpose go a stage later each, without further words."""
    store, config = Store(str(tmp_path)), config_of(tmp_path)
    chunks = chunk_rows(document_rows(100))
    run_tests(write(store, "documents", document_rows(100)), config, run_id="1")
    run_tests(write(store, "chunks", chunks), config, run_id="1")
    run_tests(write(store, "embeddings", embedding_rows(chunks)), config, run_id="1")
    halved = write(store, "documents", document_rows(50))
    assert jumped(halved, config, run_id="2") == {KEY}
    run_tests(halved, config, run_id="3", accept=True)
    begin_anew(store, config, {"documents": {KEY}}, run_id="3")
    fewer = chunk_rows(document_rows(50))
    assert gate(write(store, "chunks", fewer), config, run_id="4").held == {}
    assert gate(write(store, "embeddings", embedding_rows(fewer)), config, run_id="5").held == {}
    again = gate(write(store, "chunks", chunk_rows(document_rows(20))), config, run_id="6").held
    assert any("row_count" in reason for reason in again[KEY])


@pytest.mark.slow
def test_truncated_table_is_held(tmp_path: Path) -> None:
    store, config = Store(str(tmp_path)), config_of(tmp_path)
    current = write(store, "documents", document_rows(40))
    gate(current.of(KEY), config, run_id="1")
    clear(store, "documents")
    held = gate(TableSlice.newest(store, "documents", [KEY]), config, run_id="2").held
    assert ["row_count" in reason for reason in held[KEY]] == [True]


@pytest.mark.slow
def test_jumps_of_rate_language_and_length(tmp_path: Path) -> None:
    store, config = Store(str(tmp_path)), config_of(tmp_path)
    rows = document_rows(40)
    run_tests(write(store, "documents", rows), config, run_id="1")
    for row in rows[:15]:
        row.update(language="de", text=row["text"] * 5)
    for row in rows[20:32]:
        row.update(status="rejected", reason="password", text="", language=None)
    results = run_tests(write(store, "documents", rows), config, run_id="2")
    assert failed(results) == {"reject_rate", "language__language", "text_length"}
    rate = next(result for result in results if result.test == "reject_rate")
    assert rate.value == pytest.approx(0.3)
    assert "was 0" in rate.threshold


@pytest.mark.slow
def test_same_content_is_tested_once(tmp_path: Path) -> None:
    store, config = Store(str(tmp_path)), config_of(tmp_path)
    first = run_tests(write(store, "documents", document_rows(5)), config, run_id="1")
    both = run_tests(write(store, "documents", document_rows(5, key=OTHER)), config, run_id="2")
    assert {(result.partition_key, result.reused) for result in both} == {(KEY, True), (OTHER, False)}
    assert {result.result_id for result in first} <= {result.result_id for result in both}
    forced = run_tests(TableSlice.newest(store, "documents", [KEY]), config, run_id="3", force=True)
    assert not any(result.reused for result in forced)


@pytest.mark.slow
def test_changed_parent_tests_the_relationship_again(tmp_path: Path) -> None:
    store, config = Store(str(tmp_path)), config_of(tmp_path)
    documents = document_rows(6)
    write(store, "documents", documents)
    chunks = write(store, "chunks", chunk_rows(documents))
    run_tests(chunks, config, run_id="1")
    write(store, "documents", documents[1:])
    results = run_tests(chunks, config, run_id="2")
    assert {result.test for result in results if not result.reused} == {
        "relationships__doc_id",
        "documents_have_chunks",
    }
    assert failed(results) == {"relationships__doc_id"}


@pytest.mark.slow
def test_unreadable_partition_does_not_stop_others(tmp_path: Path) -> None:
    store, config = Store(str(tmp_path)), config_of(tmp_path)
    write(store, "documents", document_rows(5))
    broken = next((tmp_path / "tables" / "documents").glob("*.parquet"))
    current = write(store, "documents", document_rows(5, key=OTHER))
    content = broken.read_bytes()
    broken.write_bytes(b"not parquet")
    results = run_tests(current, config, run_id="1")
    assert failed(results, OTHER) == set()
    assert all(result.could_not_be_tested for result in results if result.partition_key == KEY)
    assert list(gate(current, config, run_id="2").held) == [KEY]
    broken.write_bytes(content)
    assert gate(current, config, run_id="3").held == {}


def test_failing_rows_are_bounded(tmp_path: Path) -> None:
    store, config = Store(str(tmp_path)), config_of(tmp_path, max_failing_rows=3)
    results = run_tests(write(store, "documents", document_rows(30, status="odd")), config, run_id="1")
    odd = next(result for result in results if result.test == "accepted_values__status")
    assert odd.failing_rows == 30
    assert len(failing_rows(store, [odd.result_id])) == 3
