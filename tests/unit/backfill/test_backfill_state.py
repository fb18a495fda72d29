"""What a backfill remembers, what became of its partitions, and how long the rest takes."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_core.backfill.choice import packs
from rag_core.backfill.pace import Pace, spoken
from rag_core.backfill.results import counted, due, next_due_at, read_results, results_of
from rag_core.backfill.state import Backfill, Outcome, Settings, list_backfills, load, save
from rag_core.config import RagConfig
from rag_core.config_freshness import RunConfig
from rag_core.errors import ConfigError
from rag_core.freshness.passes import Pass, load_passes, record_passes
from rag_core.partitions import all_partition_keys, source_of
from rag_core.schemas import PASSES
from rag_core.tables.store import Store

KEYS = [f"notes__{number:02d}" for number in range(6)]
RUN = RunConfig(retry_after_s=10, retry_at_most_s=25, max_attempts=4)
NONE = PASSES.empty_table()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


@pytest.fixture
def backfill() -> Backfill:
    return Backfill.new(Settings(), dict.fromkeys(KEYS, 2))


def one_pass(key: str, outcome: str, failure: str = "") -> Pass:
    now = datetime.now(UTC)
    return Pass(key, "backfill", now, now if outcome == "ok" else None, outcome, failure=failure, message="why")


def test_what_is_saved_is_read_back(store: Store, backfill: Backfill) -> None:
    outcomes = {KEYS[0]: Outcome("held", "chunks", "permanent", "a test")}
    backfill = backfill.with_run("r1", KEYS[:2]).with_run("r2", KEYS[2:]).run_ended("r1", 3.5, outcomes)
    backfill = replace(backfill, settings=Settings("chunks", True, True, 1.5, 7, False), process="p")
    save(store, backfill)
    assert load(store, backfill.id) == backfill
    assert backfill.running == ("r2",)


def test_newest_that_has_not_ended_is_meant(store: Store, backfill: Backfill) -> None:
    with pytest.raises(ConfigError, match="no backfill that has not ended; known: none"):
        load(store)
    older, newer, ended = (replace(backfill, id=name, ended=name == "3") for name in "123")
    for one in (newer, ended, older):
        save(store, one)
    assert load(store).id == "2"
    assert [one.id for one in list_backfills(store)] == ["1", "2", "3"]
    assert load(store, "3").ended
    with pytest.raises(ConfigError, match="no backfill 'x'; known: 1, 2, 3"):
        load(store, "x")


def test_a_file_that_is_half_written_is_not_seen(store: Store, backfill: Backfill, tmp_path: Path) -> None:
    save(store, backfill)
    (tmp_path / "work" / "backfills" / ".other.part").write_text("{")
    assert [one.id for one in list_backfills(store)] == [backfill.id]


def test_each_partition_is_what_its_last_run_says(store: Store, backfill: Backfill) -> None:
    backfill = backfill.with_run("r1", KEYS[:5]).run_ended("r1", 2.0)
    outcomes = [("ok", ""), ("held", "permanent"), ("failed", "permanent"), ("failed", "transient")]
    record_passes(store, [one_pass(key, *said) for key, said in zip(KEYS, outcomes, strict=False)], "r1")
    record_passes(store, [one_pass(KEYS[2], "ok")], "of another command")
    results = read_results(store, backfill, RUN)
    states = ["ok", "held", "failed", "waiting", "waiting", "waiting"]
    assert [results[key].state for key in KEYS] == states
    assert counted(results) == {"ok": 1, "held": 1, "failed": 1, "waiting": 3, "running": 0}
    ended = backfill.runs[0].started_at + timedelta(seconds=2)
    assert results[KEYS[3]].due_at == ended + timedelta(seconds=10)
    assert "before it said" in results[KEYS[4]].message  # the run ended without a pass: as if it had failed transiently
    assert [one.partition_key for one in due(results, ended)] == [KEYS[5]]
    assert next_due_at(results) == ended + timedelta(seconds=10)


def test_waits_double_up_to_a_limit_and_tries_are_bounded(backfill: Backfill) -> None:
    waits = []
    for number in range(RUN.max_attempts):
        backfill = backfill.with_run(f"r{number}", KEYS[:1])
        assert results_of(backfill, NONE, RUN)[KEYS[0]].state == "running"
        backfill = backfill.run_ended(f"r{number}", 1.0)
        result = results_of(backfill, NONE, RUN)[KEYS[0]]
        if result.due_at is not None:
            waits.append((result.due_at - backfill.runs[-1].started_at).total_seconds() - 1.0)
    assert waits == [10, 20, 25]
    assert (result.state, result.attempts) == ("failed", RUN.max_attempts)


def test_another_session_tries_what_failed_and_leaves_what_is_done(store: Store, backfill: Backfill) -> None:
    backfill = backfill.with_run("r1", KEYS[:3]).run_ended("r1", 1.0)
    record_passes(store, [one_pass(KEYS[0], "ok"), one_pass(KEYS[1], "failed", "permanent")], "r1")
    again = replace(backfill, session=2)
    results = results_of(again, load_passes(store), RUN)
    assert [results[key].state for key in KEYS] == ["ok", *["waiting"] * 5]
    assert len(due(results, datetime.now(UTC))) == 5


def test_runs_of_a_stage_have_their_results_with_them(backfill: Backfill) -> None:
    outcomes = {KEYS[0]: Outcome("ok"), KEYS[1]: Outcome("failed", "chunks", "permanent", "why")}
    results = results_of(backfill.with_run("r1", KEYS[:2]).run_ended("r1", 1.0, outcomes), NONE, RUN)
    assert [results[key].state for key in KEYS[:3]] == ["ok", "failed", "waiting"]


@given(st.sets(st.integers(0, 29), min_size=1), st.sampled_from([None, "chunks"]), st.integers(1, 8))
def test_runs_hold_every_partition_once_and_are_of_one_source(numbers: set[int], stage: str | None, most: int) -> None:
    config = RagConfig.model_validate(
        {
            "store": {"root": "/nowhere"},
            "buckets": 10,
            "sources": [{"name": name, "kind": "files", "root": "/nowhere"} for name in ("a", "b", "c")],
            "run": {"max_partitions_per_run": most},
        }
    )
    keys = [key for number, key in enumerate(all_partition_keys(config)) if number in numbers]
    found = packs(config, Settings(stage), {key: number + 1 for number, key in enumerate(keys)})
    assert sorted(key for one in found for key in one.partition_keys) == sorted(keys)
    for one in found:
        assert len({source_of(key) for key in one.partition_keys}) == 1
        assert len(one.partition_keys) <= most
    if stage is None:
        by_source = [sum(source_of(key) == name for key in keys) for name in "abc"]
        assert len(found) == sum(-(-count // most) for count in by_source)


def test_time_that_is_left() -> None:
    pace = Pace(100)
    assert (pace.eta_s, pace.objects_per_s) == (None, None)
    assert Pace(100, expected_s=50.0, done_before=20).eta_s == 40.0
    later = Pace(100, expected_s=50.0).after(20, 40.0).after(20, 40.0)
    assert (later.objects_per_s, later.left, later.eta_s) == (0.5, 60, 120.0)
    assert later.after(60, 1.0).eta_s == 0.0


@pytest.mark.parametrize(
    ("seconds", "said"), [(None, "unknown"), (0.4, "0 s"), (99, "99 s"), (700, "12 min"), (12_000, "3 h 20 min")]
)
def test_durations_as_people_say_them(seconds: float | None, said: str) -> None:
    assert spoken(seconds) == said
