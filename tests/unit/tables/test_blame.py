"""Blame: the run that wrote a row is found whatever later runs, and upkeep, did to the file that holds it."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag_core.tables.blame import LedgerBlame
from rag_core.tables.change import TableChange, commit, stage
from rag_core.tables.delta import TableSlice, ensure_table, row_schema
from rag_core.tables.store import Store

KEYS = ("a__00", "a__01")
TABLE = "index_partitions"


def write(store: Store, run_id: str, documents: dict[str, str], *, collection: str = "one") -> None:
    """Index documents (id -> partition key) as a run does: stamp, then commit, replacing what was there of them."""
    keys = tuple(sorted(set(documents.values())))
    base = TableSlice.newest(store, TABLE, keys, lane=collection)
    old = set(base.read(["doc_id"])["doc_id"].to_pylist())
    rows = [
        {
            "partition_key": key, "chunk_id": f"{doc}-{collection}", "doc_id": doc, "text_hash": "", "row_hash": run_id,
            "model_fingerprint": "m", "indexed_at": datetime.now(UTC),
        }
        for doc, key in documents.items()
    ]  # fmt: skip
    files = stage(store, TABLE, [pa.RecordBatch.from_pylist(rows, schema=row_schema(TABLE))], collection)
    replaced = tuple(sorted(old & set(documents)))
    commit(TableChange(base, "doc_id", files=files, replaced=replaced), run_id=run_id)


def test_a_row_that_was_carried_over_into_a_new_file_keeps_its_run(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    write(store, "run-1", {"x": KEYS[0], "y": KEYS[0]})
    write(store, "run-2", {"x": KEYS[0]})
    write(store, "run-3", {"z": KEYS[1]})
    write(store, "run-4", {"x": KEYS[0]}, collection="two")
    ensure_table(store, TABLE).optimize.compact()
    blame = LedgerBlame(store)
    expected = {"x-one": "run-2", "y-one": "run-1", "z-one": "run-3", "nobody": None}
    assert blame.runs_of("one", list(expected)) == expected
    assert blame.runs_of("two", ["x-two", "y-one"]) == {"x-two": "run-4", "y-one": None}
    write(store, "run-5", {"y": KEYS[0]})
    assert blame.runs_of("one", ["y-one", "x-one"]) == {"y-one": "run-5", "x-one": "run-2"}
    assert blame.runs_of("one", []) == {}


def test_a_store_without_a_ledger_blames_nobody(tmp_path: Path) -> None:
    assert LedgerBlame(Store(str(tmp_path))).runs_of("one", ["x"]) == {"x": None}


def test_what_the_log_does_not_reach_is_unknown_and_not_guessed(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    write(store, "run-1", {"x": KEYS[0]})
    write(store, "run-2", {"y": KEYS[0]})
    ensure_table(store, TABLE).create_checkpoint()
    log = tmp_path / "tables" / TABLE / "_delta_log"
    for version in (0, 1):
        (log / f"{version:020d}.json").unlink()
    assert LedgerBlame(store).runs_of("one", ["x-one"]) == {"x-one": None}


@pytest.mark.slow
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(runs=st.lists(st.sets(st.sampled_from("uvwxyz"), min_size=1, max_size=4), min_size=1, max_size=6))
def test_any_sequence_of_runs(tmp_path_factory: pytest.TempPathFactory, runs: list[set[str]]) -> None:
    store = Store(str(tmp_path_factory.mktemp("store")))
    expected: dict[str, str | None] = {}
    blame = LedgerBlame(store)
    for number, documents in enumerate(runs):
        write(store, f"run-{number}", {doc: KEYS[ord(doc) % 2] for doc in sorted(documents)})
        expected |= dict.fromkeys((f"{doc}-one" for doc in documents), f"run-{number}")
        assert blame.runs_of("one", list(expected)) == expected
