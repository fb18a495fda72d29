"""Partitions that changes wait in, against plain loops; and the tables of changes and passes."""

import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_core.config import FilesSource, RagConfig, StoreConfig
from rag_core.config_freshness import RunConfig
from rag_core.freshness.changes import append_changes, load_changes
from rag_core.freshness.dirty import Dirty, dirty_of, dirty_partitions
from rag_core.freshness.passes import Pass, load_passes, record_passes
from rag_core.tables.delta import ensure_table
from rag_core.tables.store import Store
from tests.freshness_facts import at, change, change_rows, changes_table, pass_rows, passed, passes_table

KEYS = [f"handbook__{bucket:02d}" for bucket in range(3)]
NOW = at(100_000)


def dirty(changes: list[dict[str, Any]], passes: list[dict[str, Any]], **limits: Any) -> list[Dirty]:
    config = RunConfig.model_validate(limits)
    return dirty_of(changes_table(changes), passes_table(passes), KEYS, config, now=NOW)


def brute_force(changes: list[dict[str, Any]], passes: list[dict[str, Any]], config: RunConfig) -> list[Dirty]:
    found = []
    for key in KEYS:
        mine = [row for row in passes if row["partition_key"] == key]
        covered = max((row["listed_at"] for row in mine if row["outcome"] == "ok"), default=None)
        waiting = [
            row for row in changes if row["partition_key"] == key and (covered is None or row["seen_at"] > covered)
        ]
        if not waiting:
            continue
        newest = max(row["seen_at"] for row in waiting)
        failed = [row for row in mine if row["outcome"] != "ok" and row["listed_at"] >= newest]
        failure, retry_at, stuck = "", NOW, False
        if failed:
            last = max(failed, key=lambda row: row["finished_at"])
            wait = min(config.retry_after_s * 2 ** (len(failed) - 1), config.retry_at_most_s)
            retry_at, stuck = last["finished_at"] + timedelta(seconds=wait), len(failed) >= config.max_attempts
            failure = "transient"
            if last["outcome"] == "held" or last["failure"] == "permanent":
                failure, retry_at, stuck = "permanent", None, True
        changed, look = min(row["changed_at"] for row in waiting), max(row["look"] for row in waiting)
        objects = len({row["object_id"] for row in waiting})
        found.append(Dirty(key, objects, changed, newest, look, len(failed), failure, retry_at, stuck))
    return sorted(found, key=lambda one: (one.oldest_changed_at, one.partition_key))


@pytest.mark.slow
@given(change_rows(), pass_rows())
def test_dirty_partitions_are_those_of_plain_loops(changes: list[dict[str, Any]], passes: list[dict[str, Any]]) -> None:
    # Passes that ended at the same time have no last one.
    passes = [{**row, "finished_at": row["finished_at"] + timedelta(days=n)} for n, row in enumerate(passes)]
    assert dirty(changes, passes) == brute_force(changes, passes, RunConfig())


def test_a_pass_covers_what_was_seen_before_its_listing() -> None:
    changes = [change(1, 10, 20), change(2, 30, 40)]
    assert [one.objects for one in dirty(changes, [])] == [2]
    assert [one.objects for one in dirty(changes, [passed(20, 25)])] == [1]
    assert [one.objects for one in dirty(changes, [passed(19.999999, 90)])] == [2]
    assert dirty(changes, [passed(40, 50)]) == []
    assert [one.objects for one in dirty(changes, [passed(40, None)])] == [2]


@pytest.mark.parametrize(
    ("attempts", "wait_s", "stuck"), [(1, 10, False), (2, 20, False), (3, 40, True), (9, 900, True)]
)
def test_tries_are_further_and_further_apart(attempts: int, wait_s: float, stuck: bool) -> None:
    passes = [passed(20 + number, None, pass_id=str(number)) for number in range(attempts)]
    (one,) = dirty([change(1, 10, 20)], passes)
    last = at(20 + attempts - 1 + 1)
    assert (one.attempts, one.failure, one.stuck) == (attempts, "transient", stuck)
    assert one.retry_at == last + timedelta(seconds=wait_s)
    assert not one.is_due(last)
    assert one.is_due(one.retry_at)


def test_many_tries_do_not_overflow() -> None:
    passes = [passed(20 + number, None, pass_id=str(number)) for number in range(2000)]
    (one,) = dirty([change(1, 10, 20)], passes)
    assert one.retry_at == at(2020 + 900)


@pytest.mark.parametrize("values", [{"failure": "permanent"}, {"outcome": "held", "failure": ""}])
def test_what_failed_for_good_waits_for_a_change(values: dict[str, Any]) -> None:
    failed = passed(20, None, **values)
    (one,) = dirty([change(1, 10, 20)], [failed])
    assert (one.failure, one.retry_at, one.stuck, one.is_due(NOW)) == ("permanent", None, True, False)
    (again,) = dirty([change(1, 10, 20), change(2, 30)], [failed])
    assert (again.attempts, again.failure, again.is_due(NOW), again.stuck) == (0, "", True, False)
    assert dirty([change(1, 10, 20)], [failed, passed(30, 40)]) == []


def test_partitions_that_are_no_more_are_left_out() -> None:
    assert dirty([change(1, 10, partition_key="handbook__07"), change(2, 10, partition_key="wiki__00")], []) == []


def a_store(folder: Path) -> tuple[Store, RagConfig]:
    sources = tuple(FilesSource(kind="files", name=name, root=folder) for name in ("handbook", "wiki"))
    return Store(str(folder)), RagConfig(store=StoreConfig(root=str(folder)), sources=sources, buckets=3)


def a_pass(key: str, listed: float, verified: float | None, **values: Any) -> Pass:
    outcome = {} if verified is not None else {"outcome": "failed", "stage": "chunks", "failure": "transient"}
    time = at(verified) if verified is not None else None
    return Pass(key, "change", at(listed), time, **{**outcome, "finished_at": at(listed + 1), **values})


def test_tables_of_changes_and_passes(tmp_path: Path) -> None:
    store, config = a_store(tmp_path)
    assert (load_changes(store).num_rows, load_passes(store).num_rows) == (0, 0)
    assert dirty_partitions(store, config, "handbook", now=NOW) == []
    rows = [change(1, 10), change(2, 20, partition_key="handbook__01")]
    append_changes(store, changes_table(rows))
    append_changes(store, changes_table(rows[1:]))  # a look that ended before it had noted that it was done
    append_changes(store, changes_table([change(3, 5, source="wiki", partition_key="wiki__00")]))
    assert load_changes(store)["change_id"].to_pylist() == ["change 3", "change 1", "change 2"]
    assert load_changes(store, source="handbook")["change_id"].to_pylist() == ["change 1", "change 2"]
    assert load_changes(store, since=at(10))["change_id"].to_pylist() == ["change 1", "change 2"]
    assert [one.partition_key for one in dirty_partitions(store, config, "wiki", now=NOW)] == ["wiki__00"]
    record_passes(store, [a_pass("handbook__00", 30, 40), a_pass("handbook__01", 31, None)], "run")
    record_passes(store, [a_pass("handbook__00", 30, 40, finished_at=at(90))], "run")  # the step was tried again
    found = load_passes(store).to_pylist()
    assert [(row["partition_key"], row["outcome"], row["source"], row["run_id"]) for row in found] == [
        ("handbook__00", "ok", "handbook", "run"), ("handbook__01", "failed", "handbook", "run"),
    ]  # fmt: skip
    assert load_passes(store, since=at(32))["partition_key"].to_pylist() == ["handbook__01"]
    (one,) = dirty_partitions(store, config, "handbook", now=NOW)
    assert (one.partition_key, one.attempts, one.failure) == ("handbook__01", 1, "transient")


def test_another_attempt_in_the_same_run_is_another_pass(tmp_path: Path) -> None:
    store, _ = a_store(tmp_path)
    record_passes(store, [a_pass("wiki__00", 1, None), a_pass("wiki__00", 2, 3, attempt=2)], "run")
    assert load_passes(store)["outcome"].to_pylist() == ["failed", "ok"]


@pytest.mark.parametrize(("outcome", "verified"), [("ok", None), ("failed", 3.0), ("held", 3.0)])
def test_a_pass_is_verified_if_and_only_if_it_is_ok(outcome: str, verified: float | None) -> None:
    with pytest.raises(ValueError, match="handbook__00"):
        a_pass("handbook__00", 1, verified, outcome=outcome)


@pytest.mark.slow
def test_rows_are_read_once_and_only_new_files_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, _ = a_store(tmp_path)
    times: list[datetime] = []
    for number in range(70):  # beyond the number of appends after which files are made one
        append_changes(store, changes_table([change(number, 100 - number)]))
        if number % 9 == 0:
            times = load_changes(store)["seen_at"].to_pylist()
            assert len(times) == number + 1
            assert times == sorted(times)
    rows = load_changes(store)
    assert load_changes(store) is rows
    ensure_table(store, "source_changes").delete("look = 1")
    assert load_changes(store).num_rows == 0


@pytest.mark.slow
@given(st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=4))
@settings(max_examples=15, deadline=None)
def test_repeated_rows_are_given_once(appends: list[list[int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, _ = a_store(Path(folder))
        for numbers in appends:
            append_changes(store, changes_table([change(number, 10 + number) for number in numbers]))
            load_changes(store)
        every = {number for numbers in appends for number in numbers}
        assert load_changes(store)["change_id"].to_pylist() == [f"change {number}" for number in sorted(every)]
