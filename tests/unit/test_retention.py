"""Retention removes what is old, and nothing that anything else is derived from."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_core.config import RagConfig
from rag_core.freshness.changes import load_changes
from rag_core.freshness.dirty import dirty_of
from rag_core.freshness.passes import load_passes
from rag_core.freshness.slo import standing
from rag_core.partitions import all_partition_keys, source_of
from rag_core.quality.results import ACCEPTED
from rag_core.retention.freshness import listed_before, seen_before
from rag_core.retention.rows import remove_expired
from rag_core.schemas import PASSES, SOURCE_CHANGES, TIMESTAMP
from rag_core.tables.delta import SCHEMAS, TableSlice
from rag_core.tables.log import append_rows
from rag_core.tables.store import Store

NOW = datetime(2026, 6, 1, 3, 30, tzinfo=UTC)
DAY = timedelta(days=1)


def config_of(root: str = "/nowhere", **retention: int) -> RagConfig:
    sources = [
        {"kind": "files", "name": "a", "root": "/a", "buckets": 2},
        {"kind": "files", "name": "b", "root": "/b", "buckets": 1, "objective": {"window_days": 40}},
    ]
    objective = {"objective": {"window_days": 10}}
    return RagConfig.model_validate(
        {"store": {"root": root}, "sources": sources, "freshness": objective, "retention": retention}
    )


def row_of(schema: pa.Schema, **values: Any) -> dict[str, Any]:
    """Make a row, with something in every column that is not given."""
    row: dict[str, Any] = {}
    for field in schema:
        some: Any = None
        if not field.nullable:
            some = NOW if field.type == TIMESTAMP else False if pa.types.is_boolean(field.type) else 0
            some = "" if pa.types.is_string(field.type) else some
        row[field.name] = values.get(field.name, some)
    return row


def change(number: int, key: str, seen: datetime, *, before: timedelta = timedelta(minutes=1)) -> dict[str, Any]:
    return row_of(
        SOURCE_CHANGES,
        change_id=f"c{number}",
        source=source_of(key),
        partition_key=key,
        object_id=f"o{number % 5}",
        kind="changed",
        basis="source",
        changed_at=seen - before,
        seen_at=seen,
        look=number,
        counted=True,
    )


def one_pass(number: int, key: str, listed: datetime, took: timedelta, outcome: str = "ok") -> dict[str, Any]:
    return row_of(
        PASSES,
        pass_id=f"p{number}",
        partition_key=key,
        source=source_of(key),
        reason="change",
        listed_at=listed,
        verified_at=listed + took if outcome == "ok" else None,
        outcome=outcome,
        failure="" if outcome == "ok" else "transient",
        finished_at=listed + took,
    )


_KEYS = st.sampled_from(["a__00", "a__01", "b__00", "gone__00"])
_AGES = st.floats(0, 60, allow_nan=False).map(lambda days: NOW - days * DAY)
_CHANGES = st.lists(st.tuples(_KEYS, _AGES, st.integers(0, 3_000)), max_size=25)
_PASSES = st.lists(
    st.tuples(_KEYS, _AGES, st.integers(1, 90_000), st.sampled_from(["ok", "ok", "failed"])), max_size=25
)


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(_CHANGES, _PASSES, st.integers(1, 30))
def test_what_is_removed_changes_no_standing_and_no_dirty_partition(
    changed: Sequence[Any], passed: Sequence[Any], days: int
) -> None:
    config = config_of(changes_days=days)
    changes = pa.Table.from_pylist(
        [change(n, key, at, before=timedelta(seconds=s)) for n, (key, at, s) in enumerate(changed)], SOURCE_CHANGES
    )
    passes = pa.Table.from_pylist(
        [one_pass(n, key, at, timedelta(seconds=s), outcome) for n, (key, at, s, outcome) in enumerate(passed)], PASSES
    )
    seen, listed = seen_before(changes, passes, config, NOW), listed_before(changes, passes, config, NOW)
    left = changes.filter(
        pa.array([row["seen_at"] >= seen[row["partition_key"]] for row in changes.to_pylist()], pa.bool_())
    )
    until = {"a": max(days, 10), "b": max(days, 40), "gone": days}
    stay = [
        row["finished_at"] >= NOW - until[row["source"]] * DAY or row["listed_at"] >= listed[row["partition_key"]]
        for row in passes.to_pylist()
    ]
    left_passes = passes.filter(pa.array(stay, pa.bool_()))
    for source in ("a", "b"):
        objective = config.objective_of(config.source(source))
        before, after = (
            standing(
                one.filter(pc.field("source") == source),
                other,
                objective,
                config.freshness,
                source=source,
                now=NOW,
            )
            for one, other in ((changes, passes), (left, left_passes))
        )
        assert before == after
    keys = all_partition_keys(config)
    assert dirty_of(changes, passes, keys, config.run, now=NOW) == dirty_of(
        left, left_passes, keys, config.run, now=NOW
    )
    old = pc.less(left["seen_at"], pa.scalar(NOW - 60 * DAY, TIMESTAMP))
    assert not pc.any(pc.and_(old, pc.equal(left["source"], "gone"))).as_py()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def _ids(store: Store, table: str, column: str) -> set[str]:
    return set(TableSlice.newest(store, table).read([column])[column].to_pylist())


def _remove(store: Store, config: RagConfig) -> dict[str, int]:
    return {one.table: one.rows for one in remove_expired(store, config, now=NOW, run_id="r")}


def test_changes_and_passes_go_as_a_pair(store: Store) -> None:
    config = config_of(changes_days=20)
    old, recent, ancient = NOW - 30 * DAY, NOW - 5 * DAY, NOW - 50 * DAY
    append_rows(
        store,
        "source_changes",
        [
            change(1, "a__00", old),  # done long ago: goes
            change(2, "a__00", recent),
            change(3, "a__01", ancient),  # never done: stays
            change(4, "b__00", old),  # within the longer window of its source
            change(5, "b__00", ancient),
            change(6, "gone__00", old),  # of a source that is not configured
        ],
    )
    hour = timedelta(hours=1)
    append_rows(
        store,
        "passes",
        [
            one_pass(1, "a__00", old + hour, hour),  # goes
            one_pass(2, "a__00", recent + hour, hour),
            one_pass(3, "a__01", ancient - hour, hour),  # the newest that is ok: stays
            one_pass(7, "a__01", ancient + hour, hour, "failed"),  # tries of what is still to be done: they are counted
            one_pass(8, "a__01", ancient + 2 * hour, hour, "failed"),
            one_pass(4, "b__00", ancient + hour, hour),  # goes
            one_pass(5, "b__00", old + hour, hour),
            one_pass(6, "gone__00", old, hour),
        ],
    )
    removed = _remove(store, config)
    assert _ids(store, "source_changes", "change_id") == {"c2", "c3", "c4"}
    assert _ids(store, "passes", "pass_id") == {"p2", "p3", "p5", "p7", "p8"}
    assert (removed["source_changes"], removed["passes"]) == (3, 3)
    assert set(load_changes(store)["change_id"].to_pylist()) == {"c2", "c3", "c4"}
    assert load_passes(store).num_rows == 5
    assert set(_remove(store, config).values()) == {0}, "done twice it removes nothing"


def test_what_became_searchable_within_the_window_stays_though_it_was_seen_before(store: Store) -> None:
    seen, hour = NOW - 20 * DAY - timedelta(hours=1), timedelta(hours=1)
    append_rows(store, "source_changes", [change(1, "a__00", seen), change(2, "a__00", seen - DAY)])
    append_rows(store, "passes", [one_pass(1, "a__00", seen - DAY, hour), one_pass(2, "a__00", seen, 2 * hour)])
    _remove(store, config_of(changes_days=20))
    assert _ids(store, "source_changes", "change_id") == {"c1"}
    assert _ids(store, "passes", "pass_id") == {"p2"}


def test_alerts_that_go_on_stay(store: Store) -> None:
    schema, old = SCHEMAS["alerts"], NOW - 100 * DAY
    rows = [("done", "firing", old), ("done", "resolved", old), ("open", "firing", old), ("new", "resolved", NOW - DAY)]
    append_rows(store, "alerts", [row_of(schema, alert_id=i, state=state, at=at) for i, state, at in rows])
    _remove(store, config_of())
    assert _ids(store, "alerts", "alert_id") == {"open", "new"}


def test_results_that_the_gate_needs_stay(store: Store) -> None:
    schema, old = SCHEMAS["quality_results"], NOW - 100 * DAY

    def result(name: str, at: datetime, outcome: str = "pass", test: str = "t", content: str = "x") -> dict[str, Any]:
        return row_of(
            schema, result_id=name, evaluated_at=at, table="chunks", partition_key="a__00", test=test,
            outcome=outcome, content=content, value=1.0,
        )  # fmt: skip

    append_rows(
        store,
        "quality_results",
        [
            result("older", old - DAY),  # goes: a later one passed as well
            result("passed", old),
            result("accepted", old + DAY, content=ACCEPTED),
            result("failed before", old + 2 * DAY, "error"),  # goes: a later one failed as well
            result("failed", old + 3 * DAY, "error"),
            result("recent", NOW - DAY, test="u"),
            result("quiet", old, "error", test="v"),
        ],
    )
    failures = SCHEMAS["quality_failures"]
    append_rows(
        store,
        "quality_failures",
        [
            row_of(failures, result_id=name, evaluated_at=old, key=name)
            for name in ("failed before", "failed", "quiet", "nobody's")
        ],
    )
    _remove(store, config_of())
    kept = {"passed", "accepted", "failed", "recent", "quiet"}
    assert _ids(store, "quality_results", "result_id") == kept
    assert _ids(store, "quality_failures", "result_id") == {"failed", "quiet"}


def test_verdicts_and_what_they_were_measured_by_stay_for_each_collection(store: Store) -> None:
    old = NOW - 100 * DAY
    verdicts = [("v1", "x", 0, True), ("v2", "x", 1, True), ("v3", "x", 2, False), ("v4", "y", 5, True)]
    append_rows(
        store,
        "verdicts",
        [
            row_of(SCHEMAS["verdicts"], verdict_id=name, collection=of, judged_at=old + days * DAY, passed=passed)
            for name, of, days, passed in verdicts
        ],
    )
    append_rows(
        store,
        "retrieval_eval",
        [
            row_of(
                SCHEMAS["retrieval_eval"], query_id=name, collection=of,
                evaluated_at=old + days * DAY - timedelta(minutes=1),
            )
            for name, of, days, _ in verdicts
        ],
    )  # fmt: skip
    _remove(store, config_of())
    assert _ids(store, "verdicts", "verdict_id") == {"v2", "v3", "v4"}
    assert _ids(store, "retrieval_eval", "query_id") == {"v2", "v3", "v4"}


def test_receipts_and_manifests_go_by_their_own_time(store: Store) -> None:
    receipts = [("old", 731), ("new", 729)]
    append_rows(
        store,
        "deletions",
        [row_of(SCHEMAS["deletions"], receipt_id=name, removed_at=NOW - days * DAY) for name, days in receipts],
    )
    back = "rolled back from y"
    of_x = [("x", 30, "published"), ("x", 20, "published"), ("x", 10, back), ("x", 9, back)]
    manifests = [*of_x, ("y", 15, "published"), ("z", 1, "published"), ("z", 2, "published")]
    append_rows(
        store,
        "published_index",
        [
            row_of(
                SCHEMAS["published_index"], collection=of, published_at=NOW - days * DAY, verdict=said, model=str(days)
            )
            for of, days, said in manifests
        ],
    )
    _remove(store, config_of())
    assert _ids(store, "deletions", "receipt_id") == {"new"}
    assert _ids(store, "published_index", "model") == {"20", "15", "9", "1", "2"}


def test_answers_feedback_and_counts_of_questions_go_by_age(store: Store) -> None:
    for table, key, time in (
        ("answers", "answer_id", "asked_at"), ("feedback", "feedback_id", "given_at"), ("asked", "query_key", "until"),
    ):  # fmt: skip
        ages = {"old": 31, "new": 29}
        rows = [row_of(SCHEMAS[table], **{key: name, time: NOW - days * DAY}) for name, days in ages.items()]
        append_rows(store, table, [{**row, "chunk_ids": ["c"]} if table == "feedback" else row for row in rows])
        assert _ids(store, table, key) == {"old", "new"}
    removed = _remove(store, config_of(answers_days=30))
    assert {removed[table] for table in ("answers", "feedback", "asked")} == {1}
    for table, key in (("answers", "answer_id"), ("feedback", "feedback_id"), ("asked", "query_key")):
        assert _ids(store, table, key) == {"new"}


def test_rows_that_are_appended_meanwhile_stay(store: Store) -> None:
    """What came between the look at the table and the removal is not touched."""
    append_rows(store, "alerts", [row_of(SCHEMAS["alerts"], alert_id="a", state="resolved", at=NOW - 100 * DAY)])
    found = remove_expired(store, config_of(), now=NOW, run_id="r")
    next(found)
    append_rows(store, "alerts", [row_of(SCHEMAS["alerts"], alert_id="b", state="firing", at=NOW)])
    list(found)
    assert _ids(store, "alerts", "alert_id") == {"b"}
