from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings

from rag_core.freshness.latency import LATENCIES, latencies, pending, slowest
from tests.freshness_facts import NOWS, at, change, change_rows, changes_table, pass_rows, passed, passes_table

_US = timedelta(microseconds=1)


def resolved(changes: list[dict[str, Any]], passes: list[dict[str, Any]], now: float) -> list[float | None]:
    rows = latencies(changes_table(changes), passes_table(passes), now=at(now))
    assert rows.schema.equals(LATENCIES)
    return list(rows["latency_s"].to_pylist())


def brute_force(changes: list[dict[str, Any]], passes: list[dict[str, Any]], now: datetime) -> list[dict[str, Any]]:
    """Say the same with loops alone."""
    found: dict[str, dict[str, Any]] = {}
    for row in changes:
        if row["change_id"] in found or row["seen_at"] > now:
            continue
        changed_at = row["changed_at"]
        if row["not_before"] is not None and changed_at < row["not_before"]:
            changed_at = row["not_before"]
        if changed_at > row["seen_at"]:
            changed_at = row["seen_at"]
        queryable_at = None
        for one in passes:
            if one["partition_key"] != row["partition_key"] or one["outcome"] != "ok":
                continue
            if one["listed_at"] < row["seen_at"] or one["verified_at"] > now:
                continue
            if queryable_at is None or one["verified_at"] < queryable_at:
                queryable_at = one["verified_at"]
        latency_s = None if queryable_at is None else max((queryable_at - changed_at) // _US, 0) / 1e6
        age_s = None if queryable_at is not None else ((now - changed_at) // _US) / 1e6
        values = {"changed_at": changed_at, "queryable_at": queryable_at, "latency_s": latency_s, "age_s": age_s}
        found[row["change_id"]] = {**row, **values}
    return list(found.values())


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(change_rows(), pass_rows(), NOWS)
def test_equals_plain_loops(changes: list[dict[str, Any]], passes: list[dict[str, Any]], now: datetime) -> None:
    rows = latencies(changes_table(changes), passes_table(passes), now=now)
    assert rows.to_pylist() == brute_force(changes, passes, now)


@pytest.mark.slow
@settings(deadline=None)
@given(change_rows(), pass_rows(), NOWS)
def test_a_pass_can_only_help(changes: list[dict[str, Any]], passes: list[dict[str, Any]], now: datetime) -> None:
    table = changes_table(changes)
    every = latencies(table, passes_table(passes), now=now)["latency_s"].to_pylist()
    fewer = latencies(table, passes_table(passes[1:]), now=now)["latency_s"].to_pylist()
    assert all(more is None or (one is not None and one <= more) for one, more in zip(every, fewer, strict=True))


def test_a_pass_that_listed_before_the_change_was_seen_does_not_count() -> None:
    assert resolved([change(1, 10, seen=20)], [passed(19.999999, 30)], 100) == [None]
    assert resolved([change(1, 10, seen=20)], [passed(20, 30)], 100) == [20.0]


def test_of_overlapping_passes_the_first_that_ended_counts() -> None:
    assert resolved([change(1, 0)], [passed(5, 90), passed(10, 40)], 100) == [40.0]
    assert resolved([change(1, 0, seen=7)], [passed(5, 20), passed(10, 40)], 100) == [40.0]


def test_what_failed_was_held_or_crashed_changes_nothing() -> None:
    wrong = [passed(5, None, outcome=outcome) for outcome in ("failed", "held", "crashed")]
    assert resolved([change(1, 0)], wrong, 100) == [None]
    assert resolved([change(1, 0)], [*wrong, passed(50, 60)], 100) == [60.0]


def test_a_backfill_of_another_partition_changes_nothing() -> None:
    backfill = passed(50, 60, partition_key="handbook__01", reason="backfill")
    assert resolved([change(1, 0)], [backfill], 100) == [None]
    assert resolved([change(1, 0)], [backfill, passed(10, 20)], 100) == [20.0]


def test_later_passes_change_nothing() -> None:
    again = [passed(second, second + 1, reason="reconcile") for second in range(100, 200, 10)]
    assert resolved([change(1, 0)], [passed(10, 20), *again], 300) == [20.0]


def test_an_object_dated_in_the_future_or_the_past_is_taken_within_its_looks() -> None:
    future, past = change(1, 90_000, seen=50), change(2, -90_000, seen=50, not_before=at(45))
    assert resolved([future, past], [passed(60, 70)], 100) == [20.0, 25.0]


def test_a_clock_that_was_set_back_gives_no_negative_latency() -> None:
    assert resolved([change(1, 50)], [passed(55, 40)], 100) == [0.0]


def test_the_past_can_be_asked_about() -> None:
    changes, passes = [change(1, 0), change(2, 200)], [passed(10, 100)]
    assert resolved(changes, passes, 99) == [None]
    assert resolved(changes, passes, 100) == [100.0]


def test_nothing_gives_nothing() -> None:
    assert resolved([], [], 0) == []
    assert resolved([], [passed(1, 2)], 9) == []


def test_the_slowest_and_the_oldest_pending_come_first() -> None:
    changes = [change(1, 0), change(2, 30), change(3, 200), change(4, 150), change(5, 0, counted=False)]
    rows = latencies(changes_table(changes), passes_table([passed(60, 70)]), now=at(300))
    assert [row["object_key"] for row in slowest(rows, 9, now=at(300), days=1)] == ["1.md", "2.md"]
    assert [row["object_key"] for row in pending(rows, 9)] == ["4.md", "3.md"]
    assert slowest(rows, 9, now=at(90_000), days=1) == []
