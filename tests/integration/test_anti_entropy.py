"""Damage behind the ledger is found by name and mended; what was right is not touched."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from rag_assets.cli.app import app
from rag_core.index import lite_server, schema
from rag_core.index.anti_entropy import (
    PartitionState,
    alias_finding,
    partitions_of,
    verify,
    verify_partition,
)
from rag_core.index.client import IndexClient, connect
from rag_core.index.comparison import Difference
from rag_core.index.ledger import LedgerTables
from rag_core.index.mending import _Mending, repair, repair_partition
from rag_core.index.sync import sync_partition
from rag_core.stages.publication import Manifest, write_manifest
from rag_core.tables.change import TableChange, commit, stage
from rag_core.tables.delta import TableSlice, row_schema
from rag_core.tables.store import Store
from tests.index_support import CONFIG, DIM, EPOCH, MODEL, chunk_id, hashes, rows, vector

pytestmark = pytest.mark.milvus
COLLECTION = "entropy"
HERE, BESIDE = "handbook__00", "handbook__01"
NUMBERS = {HERE: range(100), BESIDE: range(100, 200)}
KEYS = [HERE, BESIDE]
ALL = 1_000  # samples: every row
DELETED, STALE, WRONG_VECTOR, COPIED = "deleted", "stale", "wrong vector", "copied"
UNTOUCHED = "file:///as/written"  # differs from the tables' uri, unseen by any hash: a rewritten row loses it


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    made = Store(str(tmp_path_factory.mktemp("store")))
    for key, numbers in NUMBERS.items():
        add_to_tables(made, rows(numbers, partition_key=key))
    yield made
    lite_server.stop(lite_server.lite_files(made))


@pytest.fixture(scope="module")
def client(store: Store) -> Iterator[IndexClient]:
    with connect(CONFIG, store) as connected:
        yield connected


@pytest.fixture
def tables(store: Store, client: IndexClient) -> LedgerTables:
    """The tables, of a collection as the last sync left it."""
    fill(client)
    return open_tables(store)


def open_tables(store: Store) -> LedgerTables:
    return LedgerTables.open(
        store, COLLECTION, chunk_lane="c", embedding_lane="e", model_fingerprint=MODEL, dim=DIM, index=CONFIG
    )


def fill(client: IndexClient) -> None:
    client.drop_collection(COLLECTION)
    client.ensure_collection(COLLECTION, dim=DIM, model_fingerprint=MODEL)
    for key, numbers in NUMBERS.items():
        put(client, key, rows(numbers, partition_key=key, uri=UNTOUCHED))


def put(client: IndexClient, key: str, table: pa.Table) -> None:
    client.ensure_partition(COLLECTION, key)
    client.upsert(COLLECTION, key, table)
    client.flush(COLLECTION)


def add_to_tables(store: Store, table: pa.Table) -> None:
    """Write rows to chunks, embeddings and ledger, as a run does."""
    for name, lane in (("chunks", "c"), ("embeddings", "e"), ("index_partitions", COLLECTION)):
        write(store, name, lane, table)


def write(store: Store, name: str, lane: str, table: pa.Table) -> None:
    if name == "index_partitions":
        table = table.append_column("indexed_at", pa.array([EPOCH] * table.num_rows, pa.timestamp("us", tz="UTC")))
    base = TableSlice.newest(store, name, pc.unique(table["partition_key"]).to_pylist(), lane=lane)
    part = table.select(row_schema(name).names).cast(row_schema(name)).combine_chunks()
    commit(TableChange(base, "doc_id", files=stage(store, name, part.to_batches(), lane)), run_id="test")


def content(client: IndexClient, key: str) -> dict[str, dict[str, Any]]:
    """Every field of every row of a partition, vectors included."""
    fields = [*schema.FIELDS, schema.DENSE, schema.SPARSE]
    return {row["chunk_id"]: row for row in client.list_rows(COLLECTION, key, fields)}


def found(state: PartitionState) -> dict[str, int]:
    return {kind: count for kind, count in state.counts.items() if count}


def damage(client: IndexClient, key: str, number: int, kind: str) -> None:
    one = rows([number], partition_key=key)
    other = next(name for name in KEYS if name != key)
    if kind == DELETED:
        client.delete(COLLECTION, key, [chunk_id(number)])
    elif kind == STALE:
        client.upsert(COLLECTION, key, rows([number], title="Stale", partition_key=key))
    elif kind == WRONG_VECTOR:
        client.upsert(COLLECTION, key, rows([number], partition_key=key, vector=-vector(number)))
    else:
        client.upsert(COLLECTION, other, one)


def test_clean(client: IndexClient, tables: LedgerTables) -> None:
    states = list(verify(client, tables, partitions_of(client, tables, KEYS), samples=10))
    assert [(state.partition_key, state.ledger_rows, state.index_rows, state.sampled) for state in states] == [
        (HERE, 100, 100, 10),
        (BESIDE, 100, 100, 10),
    ]
    assert all(state.is_clean and state.is_settled for state in states)
    before = content(client, HERE)
    outcome = repair_partition(client, tables, HERE)
    assert (outcome.written, outcome.deleted, outcome.after) == (0, 0, outcome.before)
    assert content(client, HERE) == before


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(DELETED, {"missing": 1}), (STALE, {"stale": 1}), (WRONG_VECTOR, {"unsearchable": 1}), (COPIED, {})],
)
def test_each_fault_has_its_name(
    client: IndexClient, tables: LedgerTables, kind: str, expected: dict[str, int]
) -> None:
    damage(client, HERE, 7, kind)
    client.flush(COLLECTION)
    here, beside = (verify_partition(client, tables, key, samples=ALL) for key in KEYS)
    assert found(here) == expected
    assert found(beside) == ({"duplicated": 1} if kind == COPIED else {})
    assert all(ids == (chunk_id(7),) for state in (here, beside) for ids in state.examples.values())


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    faults=st.dictionaries(
        st.integers(0, 99), st.sampled_from([DELETED, STALE, WRONG_VECTOR, COPIED]), min_size=5, max_size=5
    ),
    added=st.sets(st.integers(300, 400), max_size=5),
)
def test_repair_after_random_damage(client: IndexClient, store: Store, faults: dict[int, str], added: set[int]) -> None:
    fill(client)
    tables = open_tables(store)
    before = {key: content(client, key) for key in KEYS}
    for number, kind in faults.items():
        damage(client, HERE, number, kind)
    if added:
        client.upsert(COLLECTION, HERE, rows(sorted(added), partition_key=HERE))
    client.flush(COLLECTION)
    kinds = list(faults.values())
    outcomes = {
        item.before.partition_key: item for item in repair(client, tables, dict.fromkeys(KEYS, True), samples=ALL)
    }
    assert outcomes[HERE].before.counts == {
        "missing": kinds.count(DELETED),
        "orphaned": len(added),
        "duplicated": 0,
        "stale": kinds.count(STALE),
        "unsearchable": kinds.count(WRONG_VECTOR),
    }
    assert found(outcomes[BESIDE].before) == ({"duplicated": kinds.count(COPIED)} if COPIED in kinds else {})
    assert all(outcome.after.is_clean and not outcome.needs_run for outcome in outcomes.values())
    assert sum(outcome.written for outcome in outcomes.values()) == len(faults)
    after = {key: content(client, key) for key in KEYS}
    assert after[BESIDE] == before[BESIDE]
    mended = {chunk_id(number): f"file:///handbook/page-{number}.md" for number in faults}
    assert after[HERE] == {i: row if i not in mended else {**row, "uri": mended[i]} for i, row in before[HERE].items()}


def test_a_row_that_is_only_in_the_wrong_partition(client: IndexClient, tables: LedgerTables) -> None:
    damage(client, HERE, 7, DELETED)
    client.flush(COLLECTION)
    damage(client, HERE, 7, COPIED)
    client.flush(COLLECTION)
    outcomes = list(repair(client, tables, dict.fromkeys(KEYS, True)))
    assert [found(outcome.before) for outcome in outcomes] == [{"missing": 1}, {"duplicated": 1}]
    assert all(verify_partition(client, tables, key).is_clean for key in KEYS)


def test_what_a_server_holds_twice_is_written_once(client: IndexClient, tables: LedgerTables) -> None:
    """Lite never holds an id twice in a partition, so the finding is given here."""
    mending = _Mending(client, tables, HERE)
    mending.mend(Difference(duplicated=(chunk_id(7), chunk_id(8))))
    assert (mending.deleted, sorted(mending.written)) == (2, sorted([chunk_id(7), chunk_id(8)]))
    assert verify_partition(client, tables, HERE).is_clean
    rewritten = [row["chunk_id"] for row in content(client, HERE).values() if row["uri"] != UNTOUCHED]
    assert sorted(rewritten) == sorted(mending.written)


def test_partitions_that_nobody_knows(client: IndexClient, tables: LedgerTables) -> None:
    put(client, "retired__00", rows(range(300, 310)))
    put(client, "retired__00", rows([3], partition_key=HERE))
    client._connection.call(
        "a stranger's insert", lambda milvus: milvus.insert(COLLECTION, list(schema.milvus_rows(rows([500, 4]))))
    )
    client.flush(COLLECTION)
    partitions = partitions_of(client, tables, KEYS)
    assert partitions == {HERE: True, BESIDE: True, "retired__00": False, "_default": True}
    states = {state.partition_key: state for state in verify(client, tables, partitions)}
    assert found(states["retired__00"]) == {"orphaned": 10, "duplicated": 1}
    assert found(states["_default"]) == {"orphaned": 1, "duplicated": 1}
    before = {key: content(client, key) for key in KEYS}
    assert all(outcome.after.is_clean for outcome in repair(client, tables, partitions))
    assert partitions_of(client, tables, KEYS) == {HERE: True, BESIDE: True}
    before[HERE][chunk_id(4)]["uri"] = "file:///handbook/page-4.md"  # Lite deletes it here as well
    assert {key: content(client, key) for key in KEYS} == before


def test_a_lost_collection_is_made_again(client: IndexClient, tables: LedgerTables) -> None:
    client.drop_collection(COLLECTION)
    partitions = partitions_of(client, tables, KEYS)
    assert [found(state) for state in verify(client, tables, partitions)] == [{"missing": 100}, {"missing": 100}]
    assert all(outcome.after.is_clean for outcome in repair(client, tables, partitions, samples=ALL))
    assert client.count(COLLECTION) == 200


def test_ledger_row_without_its_chunk_needs_a_run(client: IndexClient, store: Store) -> None:
    told = rows(range(10), partition_key=HERE)
    changed = pa.concat_tables([rows([0], title="Newer", partition_key=HERE), told.slice(2)])
    write(store, "index_partitions", "behind", told)
    write(store, "chunks", "b", changed)
    write(store, "embeddings", "b", told)
    tables = LedgerTables.open(
        store, "behind", chunk_lane="b", embedding_lane="b", model_fingerprint=MODEL, dim=DIM, index=CONFIG
    )
    (outcome,) = repair(client, tables, {HERE: True})
    assert (outcome.written, outcome.needs_run) == (8, 2)
    assert found(outcome.after) == {"missing": 2}
    assert outcome.to_dict()["needs_run"] == 2


def test_a_partition_that_a_run_is_writing_is_left_alone(client: IndexClient, tables: LedgerTables) -> None:
    damage(client, HERE, 7, DELETED)
    damage(client, HERE, 8, COPIED)
    client.flush(COLLECTION)
    tables.journal.begin(HERE)
    try:
        outcome, beside = repair(client, tables, dict.fromkeys(KEYS, True))
        assert "rag run" in outcome.skipped
        assert not outcome.after.is_settled
        assert client.count(COLLECTION, HERE) == 99
        # The copy of a row of that partition stays too: taking it away would take the row away.
        assert found(beside.after) == {"duplicated": 1}
        assert chunk_id(8) in client.fetch(COLLECTION, HERE, [chunk_id(8)], ())
    finally:
        tables.journal.end(HERE)
    assert all(outcome.after.is_clean for outcome in repair(client, tables, dict.fromkeys(KEYS, True)))


def test_repair_beside_a_sync(client: IndexClient, tables: LedgerTables, store: Store) -> None:
    """A sync has written what the ledger does not say yet: a repair at any time takes none of it away."""
    wanted = rows([*range(10, 100), *range(600, 640)], partition_key=HERE)
    synced, done = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def sync() -> None:
        try:
            with connect(CONFIG, store) as other:
                sync_partition(
                    other,
                    COLLECTION,
                    HERE,
                    changes=[wanted.slice(90)],
                    delete_ids=[chunk_id(number) for number in range(10)],
                    expected_count=wanted.num_rows,
                    expected=lambda: hashes(wanted),
                    journal=tables.journal,
                )
        except BaseException as error:  # noqa: BLE001 - told to the test's own thread
            failures.append(error)
        finally:
            synced.set()

    def repair_on() -> None:
        while not done.is_set():
            for outcome in repair(client, tables, dict.fromkeys(KEYS, True), samples=2):
                assert outcome.skipped or outcome.after.is_clean
            done.wait(0.02)

    repairing = threading.Thread(target=repair_on)
    writing = threading.Thread(target=sync)
    for thread in (repairing, writing):
        thread.start()
    synced.wait(60)
    repairing_was_alive = repairing.is_alive()
    state = verify_partition(client, tables, HERE)
    done.set()
    for thread in (repairing, writing):
        thread.join()
    assert not failures
    assert repairing_was_alive
    held = {row["chunk_id"]: row["row_hash"] for row in client.list_rows(COLLECTION, HERE, ["row_hash"])}
    assert held == hashes(wanted)
    assert not state.is_settled
    tables.journal.end(HERE)


def test_alias(client: IndexClient, tables: LedgerTables) -> None:
    manifest = manifest_of(COLLECTION)
    client.drop_alias("entropy_alias")
    assert alias_finding(client, manifest) == f"alias entropy_alias does not exist; the manifest names {COLLECTION}"
    client.ensure_collection("another", dim=DIM, model_fingerprint=MODEL)
    client.set_alias("entropy_alias", "another")
    assert alias_finding(client, manifest) == f"alias entropy_alias points at another; the manifest names {COLLECTION}"
    assert "is not on" in str(alias_finding(client, manifest_of("absent")))
    client.set_alias("entropy_alias", COLLECTION)
    assert alias_finding(client, manifest) is None
    client.drop_alias("entropy_alias")
    client.drop_collection("another")


def manifest_of(collection: str) -> Manifest:
    kept = {"chunk_lane": "c", "embedding_lane": "e", "chunking": {}, "embedding": {}}
    return Manifest(
        collection=collection,
        alias="entropy_alias",
        published_at=EPOCH,
        model="test",
        model_fingerprint=MODEL,
        dim=DIM,
        metric="COSINE",
        index_type="FLAT",
        search_params="{}",
        documents=200,
        chunks=200,
        partitions=2,
        table_versions="{}",
        settings=json.dumps({**kept, "index": {"index_type": "FLAT", "metric": "COSINE"}}),
        ann_recall_at_10=None,
        verdict="published",
    )


@pytest.fixture
def served(client: IndexClient, tables: LedgerTables, store: Store, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Environment in which `rag` serves the collection."""
    write_manifest(store, manifest_of(COLLECTION), run_id="test")
    client.set_alias("entropy_alias", COLLECTION)
    source = {"name": "handbook", "kind": "files", "root": str(tmp_path), "principals": ["everyone"]}
    settings = {"store": {"root": store.root}, "buckets": 2, "sources": [source], "index": {"lite_idle_s": 5.0}}
    # The rows are made up: their documents are in no table, and their vectors are of no model.
    off = {
        "chunks": "relationships: {to: documents.doc_id, enabled: false}",
        "embeddings": "vector_dim: {enabled: false}",
    }
    (tmp_path / "tests").mkdir()
    for name, column in (("chunks", "doc_id"), ("embeddings", "vector")):
        test = f"table: {name}\ncolumns: [{{name: {column}, tests: [{{{off[name]}}}]}}]\n"
        (tmp_path / "tests" / f"{name}.yml").write_text(test)
    settings["quality"] = {"tests": "tests"}
    path = tmp_path / "rag.yaml"
    path.write_text(yaml.safe_dump(settings))
    yield {"RAG_CONFIG": str(path)}
    client.drop_alias("entropy_alias")


def test_command_line(client: IndexClient, served: dict[str, str]) -> None:
    runner = CliRunner(env=served)
    assert "clean" in runner.invoke(app, ["verify"], catch_exceptions=False).stdout
    damage(client, HERE, 7, DELETED)
    damage(client, BESIDE, 107, STALE)
    client.ensure_collection("another", dim=DIM, model_fingerprint=MODEL)
    client.set_alias("entropy_alias", "another")
    shown = runner.invoke(app, ["verify"])
    assert shown.exit_code == 1
    assert f"{HERE}: 1 missing, such as {chunk_id(7)}" in shown.stdout
    assert "alias entropy_alias points at another" in shown.stdout
    assert runner.invoke(app, ["verify", "--partition", "handbook__07"]).exit_code != 0
    one = runner.invoke(app, ["verify", "--partition", BESIDE, "--repair"])
    assert f"{BESIDE}: 1 rows written, 0 deleted, clean now" in one.stdout
    assert client.alias_target("entropy_alias") == COLLECTION
    mended = runner.invoke(app, ["verify", "--source", "handbook", "--repair", "--json"])
    result = json.loads(mended.stdout)
    assert (mended.exit_code, result["is_clean"], len(result["partitions"])) == (0, True, 2)
    assert [item["written"] for item in result["repairs"]] == [1]
    assert runner.invoke(app, ["verify"]).exit_code == 0
    client.drop_collection("another")


def test_rows_of_tables_that_fail_a_blocking_test_are_not_written(
    client: IndexClient, served: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "tests" / "embeddings.yml").unlink()  # now the vectors have the wrong dimension
    damage(client, HERE, 7, DELETED)
    runner = CliRunner(env=served)
    left = runner.invoke(app, ["verify", "--repair"])
    assert left.exit_code == 1
    assert f"{HERE}: left alone, the tables that its rows come from are wrong: vector_dim__vector" in left.stdout
    assert chunk_id(7) not in content(client, HERE)
