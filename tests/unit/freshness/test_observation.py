"""Looks in a real store: what changed between listings, whatever happens in between."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag_core.config import JsonlSource
from rag_core.errors import SourceError
from rag_core.freshness.look_files import LookFiles
from rag_core.freshness.observation import LookCursor, observe, seen_counts
from rag_core.index.lite_files import locked
from rag_core.sources.base import SourceObject
from rag_core.tables.delta import ensure_table
from tests.looking import LONG_AGO, START, Looking, at, expected, kinds, listed, object_id, objects

KEYS = ("a.md", "b/c.md", "b/d é.md", "e.md", "f.md")
LISTINGS = st.dictionaries(st.sampled_from(KEYS), st.sampled_from("123"))
CRASHES = ("look.before_pending", "look.before_append", "look.before_pointer", "look.before_cleaning")
FEW = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class CrashError(BaseException):
    """Stands for the end of the process; tests with real ends are in tests/integration/test_look_crash.py."""


@pytest.fixture
def looking(tmp_path: Path) -> Looking:
    made = Looking(tmp_path)
    made.root.mkdir()
    return made


@pytest.fixture
def fifty(looking: Looking) -> dict[str, str]:
    """Fifty objects that were seen."""
    states = {f"{number}.md": "1" for number in range(50)}
    assert looking.look(objects(states)).look == 1
    return states


def files_of(looking: Looking) -> dict[str, bytes]:
    folder = looking.folder / "store" / "work" / "looks"
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def version(looking: Looking) -> int:
    return int(ensure_table(looking.store, "source_changes").version())


@pytest.mark.slow
@given(st.lists(LISTINGS, min_size=1, max_size=6))
@FEW
def test_changes_replayed_give_the_last_listing(listings: list[dict[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        looking, before = Looking(Path(folder)), {}
        for number, states in enumerate(listings):
            seen = looking.look(objects(states), now=at(number))
            assert kinds(seen) == expected(before, states)
            assert (seen.complete, seen.objects, seen.problem) == (True, len(states), None)
            before = states
        assert looking.replayed() == {object_id(key) for key in before}
        assert sum(seen_counts(looking.store, looking.config, "handbook").values()) == len(before)


@pytest.mark.slow
@given(st.lists(st.tuples(LISTINGS, st.sampled_from((None, *CRASHES))), min_size=2, max_size=7))
@FEW
def test_a_crash_at_any_step_loses_and_doubles_nothing(looks: list[tuple[dict[str, str], str | None]]) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        looking, recorded, every = Looking(Path(folder)), {}, []
        for number, (states, crash) in enumerate([*looks, (looks[-1][0], None)]):
            reached: list[str] = []

            def crash_point(name: str, crash: str | None = crash, reached: list[str] = reached) -> None:
                reached.append(name)
                if name == crash:
                    raise CrashError

            patched.setattr("rag_core.freshness.look_files.crash_point", crash_point)
            with suppress(CrashError):
                looking.look(objects(states), now=at(number))
            if "look.before_append" in reached:  # its changes are written down: from then on the look counts as done
                every += expected(recorded, states).items()
                recorded = states
        rows = looking.rows()
        assert sorted((row["object_id"], row["kind"]) for row in rows) == sorted(every)
        assert len({row["change_id"] for row in rows}) == len(rows)
        assert looking.replayed() == {object_id(key) for key in looks[-1][0]}


PATHS = st.sets(st.sampled_from([f"{a}/{b}{c}.md" for a in "xy" for b in ("", "z/") for c in range(3)]))


@pytest.mark.slow
@given(st.lists(PATHS, min_size=1, max_size=4))
@FEW
def test_a_listing_in_pieces_gives_what_one_look_gives(listings: list[set[str]]) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        patched.setattr("rag_core.sources.files._PAGE_FILES", 2)
        limits = {"list_budget_s": 1e-9, "max_shrink": 1}
        whole, pieces = Looking(Path(folder)), Looking(Path(folder), {"freshness": limits}, store_name="of pieces")
        whole.root.mkdir()
        for number, paths in enumerate(listings):
            shutil.rmtree(whole.root)
            for path in paths | {"x/always.md"}:
                put(whole.root / path, "x" * (number // 2), LONG_AGO)
            one = whole.look(now=at(number), accept_shrink=True)
            found = [pieces.look(now=at(number))]
            while not found[-1].complete:
                assert found[-1].cursor.position is not None
                found.append(pieces.look(now=at(number + len(found) / 100)))
            assert kinds(found[-1]) == kinds(one)
            assert found[-1].objects == one.objects == len(paths) + 1
            assert len(found) >= (len(paths) + 1) // 2
            assert found[-1].cursor.looked_at == at(number)  # when the first of the pieces began


def test_an_unfinished_listing_begins_again_without_its_cursor(
    looking: Looking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag_core.sources.files._PAGE_FILES", 1)
    looking.settings = {"freshness": {"list_budget_s": 1e-9}}
    for name in "abc":
        put(looking.root / name, "", LONG_AGO)
    first = looking.look()
    assert (first.complete, first.objects) == (False, 1)
    assert looking.look().objects == 2
    looking.cursor = LookCursor()
    assert looking.look().objects == 1
    looking.cursor = first.cursor  # the files in the store are of a later piece by now
    assert looking.look().objects in (1, 2)
    looking.settings = {}
    done = looking.look()
    assert (done.complete, done.objects, done.changes.num_rows) == (True, 3, 3)
    assert not (looking.folder / "store" / "work" / "looks" / "handbook" / "partial.npz").exists()


def test_an_object_that_is_being_written_is_left_until_it_settles(looking: Looking) -> None:
    looking.look([listed("a")], now=at(0))
    looking.look([listed("a")], now=at(5))
    young = looking.look([listed("a", "2", at(9.5)), listed("b", "1", at(9))], now=at(10))
    assert (young.unsettled, young.changes.num_rows, young.complete) == (2, 0, True)
    one = looking.look([listed("a", "3", at(14.9)), listed("b", "1", at(9))], now=at(15))
    assert kinds(one) == {object_id("b"): "new"}
    assert one.unsettled == 1
    last = looking.look([listed("a", "3", at(14.9)), listed("b", "1", at(9))], now=at(20))
    assert kinds(last) == {object_id("a"): "changed"}
    new, changed = looking.rows()[1:]
    # left to settle, not forgotten: the look before the first that could have shown it counts
    assert (new["not_before"], new["changed_at"], new["basis"], new["counted"]) == (at(5), at(9), "source", True)
    assert (changed["not_before"], changed["changed_at"]) == (at(5), at(14.9))


@pytest.mark.slow
def test_an_object_that_never_settles_is_taken_at_last(looking: Looking) -> None:
    looking.look([], now=at(0))
    taken = []
    for second in range(5, 200, 5):
        seen = looking.look([listed("log", str(second), at(second - 0.1))], now=at(second))
        taken += [second] * seen.changes.num_rows
    assert taken == [65, 130, 195]  # every 60 seconds from when it began to change
    assert [row["kind"] for row in looking.rows()] == ["new", "changed", "changed"]


def test_an_object_that_vanishes_before_it_settles_never_was(looking: Looking) -> None:
    looking.look([], now=at(0))
    assert looking.look([listed("draft", "1", at(4.5))], now=at(5)).unsettled == 1
    gone = looking.look([], now=at(10))
    assert (gone.unsettled, gone.changes.num_rows, looking.rows()) == (0, 0, [])


def test_only_files_are_left_to_settle(looking: Looking) -> None:
    records = JsonlSource(kind="jsonl", name="handbook", root=looking.root)
    config = looking.config.model_copy(update={"sources": (records,)})
    for number, found in enumerate([[], [listed("a", "1", at(1))]]):
        seen = observe(looking.store, config, "handbook", now=at(number), listing=found)
    assert (seen.unsettled, seen.changes.num_rows) == (0, 1)


def test_without_settling_everything_is_taken_at_once(looking: Looking) -> None:
    looking.settings = {"freshness": {"settle_s": 0}}
    looking.look([], now=at(0))
    assert looking.look([listed("a", "1", at(5)), listed("b", "1", at(900))], now=at(5)).changes.num_rows == 2


@pytest.mark.parametrize(
    ("modified_at", "changed_at", "basis"),
    [
        (at(105), at(105), "source"),
        (at(100), at(100), "source"),
        (at(99), at(100), "bound"),  # moved here: its own time is older than its being here
        (LONG_AGO, at(100), "bound"),
        (None, at(100), "bound"),
    ],
)
def test_time_of_a_change(looking: Looking, modified_at: datetime | None, changed_at: datetime, basis: str) -> None:
    looking.look([], now=at(100))
    looking.look([listed("a", "1", modified_at)], now=at(110))
    (row,) = looking.rows()
    assert (row["changed_at"], row["basis"], row["not_before"], row["counted"]) == (changed_at, basis, at(100), True)
    assert at(110) <= row["seen_at"] < at(112)


def test_a_time_in_the_future_is_not_believed(looking: Looking) -> None:
    looking.look([], now=at(100))
    future = listed("a", "1", at(10_000_000))
    assert looking.look([future], now=at(105)).unsettled == 1  # it may be a clock that runs a little ahead
    assert looking.look([future], now=at(110)).changes.num_rows == 1
    (row,) = looking.rows()
    assert (row["changed_at"], row["basis"], row["not_before"]) == (row["seen_at"], "bound", at(100))


def test_deleted_objects_are_dated_by_the_look_before(looking: Looking, fifty: dict[str, str]) -> None:
    looking.look(objects(fifty), now=at(20))
    looking.look(objects({key: "1" for key in fifty if key != "7.md"}), now=at(30))
    row = looking.rows()[-1]
    assert (row["kind"], row["object_id"], row["changed_at"], row["basis"]) == (
        "deleted", object_id("7.md"), at(20), "bound",
    )  # fmt: skip


def test_that_nothing_changed_is_remembered_without_the_cursor(looking: Looking, fifty: dict[str, str]) -> None:
    looking.look(objects(fifty), now=at(5000))
    looking.cursor = LookCursor()
    looking.look(objects({**fifty, "7.md": "2"}), now=at(5005))
    assert looking.rows()[-1]["not_before"] == at(5000)


def test_a_clock_that_was_put_back_does_no_harm(looking: Looking, fifty: dict[str, str]) -> None:
    looking.look(objects({key: "1" for key in fifty if key != "7.md"}), now=at(-3600))
    row = looking.rows()[-1]
    assert row["not_before"] <= row["changed_at"] <= row["seen_at"]


def test_the_first_look_is_not_counted(looking: Looking) -> None:
    seen = looking.look([listed("a"), listed("b", "1", None), listed("c", "1", at(-0.5))], now=at(0))
    assert seen.unsettled == 1
    looking.look([listed("a"), listed("b", "1", None), listed("c", "1", at(-0.5))], now=at(5))
    for row in looking.rows():
        assert (row["kind"], row["counted"], row["not_before"]) == ("new", False, None)
        assert row["changed_at"] <= row["seen_at"]
    assert {row["changed_at"] for row in looking.rows()} >= {LONG_AGO, at(-0.5)}


def test_unchanged_looks_write_no_snapshot_and_no_rows(looking: Looking, fifty: dict[str, str]) -> None:
    before, number = files_of(looking), version(looking)
    seen = looking.look(objects(fifty), now=at(5))
    assert (seen.look, seen.changes.num_rows, version(looking)) == (1, 0, number)
    after = files_of(looking)
    changed = [path for path in before | after if before.get(path) != after.get(path)]
    assert [Path(path).name for path in changed] == ["current.json"]
    assert seen.cursor.looked_at == at(5)


def put(path: Path, text: str, modified_at: datetime) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (modified_at.timestamp(),) * 2)


def failing(root: Path) -> Iterator[SourceObject]:
    yield listed("0.md")
    raise SourceError(f"source 'handbook': {root} went away while it was listed")


def test_what_is_not_there_deletes_nothing(looking: Looking) -> None:
    for number in range(20):
        put(looking.root / f"{number}.md", "x", LONG_AGO)
    looking.look(now=at(0))
    before, number = files_of(looking), version(looking)
    moved = looking.root.rename(looking.folder / "moved")
    no_folder = looking.look(now=at(5))
    looking.root.mkdir()  # the place where it was mounted
    emptied = looking.look(now=at(10))
    broken = looking.look(failing(looking.root), now=at(15))
    found = [(seen.problem.kind, seen.changes.num_rows, seen.complete) for seen in (no_folder, emptied, broken)]
    assert found == [(kind, 0, False) for kind in ("listing_failed", "implausible_shrink", "listing_failed")]
    assert str(looking.root) in no_folder.problem.message
    for words in ("'handbook'", "20 of 20", "50%", str(looking.root), "rag run --source handbook --accept-deletions"):
        assert words in emptied.problem.message
    assert "went away" in broken.problem.message
    assert (files_of(looking), version(looking)) == (before, number)
    looking.root.rmdir()
    moved.rename(looking.root)
    again = looking.look(now=at(20))
    assert (again.complete, again.changes.num_rows, again.problem) == (True, 0, None)


@pytest.mark.parametrize(("left", "refused"), [(25, False), (24, True), (0, True)])
def test_half_of_a_source_may_vanish(looking: Looking, fifty: dict[str, str], left: int, refused: bool) -> None:
    some = dict(list(fifty.items())[:left])
    seen = looking.look(objects(some), now=at(5))
    assert ((seen.problem is not None), seen.changes.num_rows) == (refused, 0 if refused else 50 - left)
    accepted = looking.look(objects(some), now=at(10), accept_shrink=True)
    assert (accepted.problem, accepted.changes.num_rows) == (None, 50 - left if refused else 0)


def test_a_few_objects_may_always_vanish(looking: Looking) -> None:
    looking.look(objects(dict.fromkeys(map(str, range(10)), "1")))
    assert looking.look([], now=at(5)).changes.num_rows == 10


def test_new_objects_do_not_make_up_for_those_that_are_gone(looking: Looking, fifty: dict[str, str]) -> None:
    seen = looking.look(objects({f"other/{key}": "1" for key in fifty}), now=at(5))
    assert seen.problem is not None


@pytest.mark.parametrize("seen_before", [True, False])
def test_a_key_that_is_listed_twice_is_a_problem(looking: Looking, seen_before: bool) -> None:
    looking.look([listed("a")] if seen_before else [])
    twice = looking.look([listed("b"), listed("a"), listed("c"), listed("a", "2")], now=at(5))
    assert twice.problem is not None
    assert twice.problem.message == "source 'handbook' lists 'a' twice; keys must be unique"
    assert looking.look([listed("b")], now=at(10)).problem is None


def test_other_settings_of_a_source_are_not_counted_as_its_changes(looking: Looking) -> None:
    for number in range(6):
        put(looking.root / f"{number}.{'md' if number % 2 else 'txt'}", "x", LONG_AGO)
    looking.source = {"include": ["*.md"]}
    looking.look(now=at(0))
    looking.source = {"include": ["*"]}
    assert looking.look(now=at(5)).changes.num_rows == 3
    assert not any(row["counted"] for row in looking.rows())
    put(looking.root / "later.md", "x", at(6))
    looking.look(now=at(10))
    assert looking.rows()[-1]["counted"]


def test_another_number_of_buckets_makes_old_and_new_partitions_dirty(looking: Looking, fifty: dict[str, str]) -> None:
    looking.settings = {"buckets": 4}
    young = {**fifty, "0.md": "2"}
    moved = looking.look(
        [listed("0.md", "2", at(4.9)), *objects({k: v for k, v in young.items() if k != "0.md"})], now=at(5)
    )
    assert moved.unsettled == 0
    places = {(row["object_id"], row["partition_key"]) for row in moved.changes.to_pylist()}
    for key in fifty:
        name = object_id(key)
        assert (name, f"handbook__{int(name[:15], 16) % 4:02d}") in places
        if int(name[:15], 16) % 8 < 4:
            assert (name, f"handbook__{int(name[:15], 16) % 8:02d}") in places
    assert {row["partition_key"] for row in moved.changes.to_pylist()} <= {f"handbook__0{n}" for n in range(4)}
    assert not any(row["counted"] for row in moved.changes.to_pylist())
    assert looking.look(objects(young), now=at(10)).changes.num_rows == 0


def test_where_the_recorded_changes_are_gone_all_is_new(looking: Looking, fifty: dict[str, str]) -> None:
    shutil.rmtree(looking.folder / "store" / "tables")
    assert looking.look(objects(fifty), now=at(5)).changes.num_rows == 50
    assert looking.look(objects(fifty), now=at(10)).changes.num_rows == 0
    assert looking.replayed() == set(map(object_id, fifty))


@pytest.mark.parametrize("broken", [b"", b"{", b"PK\x03\x04 half of a file"])
@pytest.mark.parametrize("file", ["current.json", "state-1.npz", "pending.arrow"])
def test_files_that_cannot_be_read_are_made_anew(
    looking: Looking, fifty: dict[str, str], file: str, broken: bytes
) -> None:
    path = looking.folder / "store" / "work" / "looks" / "handbook" / file
    path.write_bytes(broken)
    seen = looking.look(objects({**fifty, "7.md": "2"}), now=at(5))
    assert seen.problem is None
    is_first = file in ("current.json", "state-1.npz")
    assert (seen.changes.num_rows, seen.look) == (50 if is_first else 1, 2)
    assert looking.look(objects({**fifty, "7.md": "2"}), now=at(10)).changes.num_rows == 0


@pytest.mark.parametrize("broken", [b"", b"PK\x03\x04 half of a file"])
def test_an_unfinished_listing_that_cannot_be_read_begins_again(
    looking: Looking, monkeypatch: pytest.MonkeyPatch, broken: bytes
) -> None:
    monkeypatch.setattr("rag_core.sources.files._PAGE_FILES", 1)
    looking.settings = {"freshness": {"list_budget_s": 1e-9}}
    for name in "abc":
        put(looking.root / name, "", LONG_AGO)
    looking.look()
    looking.look()
    (looking.folder / "store" / "work" / "looks" / "handbook" / "partial.npz").write_bytes(broken)
    assert looking.look().objects == 1


def test_a_source_that_was_forgotten_is_new(looking: Looking, fifty: dict[str, str]) -> None:
    LookFiles(looking.store, "handbook").forget()
    LookFiles(looking.store, "wiki").forget()
    seen = looking.look(objects(fifty), now=at(5))
    assert (seen.look, set(kinds(seen).values())) == (2, {"new"})  # of another number, so that no row seems repeated


def test_one_process_looks_at_a_time(looking: Looking, fifty: dict[str, str]) -> None:
    looking.settings = {"freshness": {"list_budget_s": 0.05}}
    with ExitStack() as stack:
        lock = looking.folder / "store" / "work" / "looks" / "handbook.lock"
        stack.enter_context(locked(lock, timeout_s=1))
        waiting = looking.look([], now=at(5))
        assert (waiting.complete, waiting.problem, waiting.cursor) == (False, None, looking.cursor)
    assert looking.look(objects(fifty), now=at(10)).complete


@pytest.mark.parametrize("text", [None, "", "{}", "[]", "nonsense", '{"look": "x"}', '{"looked_at": 3}'])
def test_a_cursor_that_says_nothing_is_a_new_one(text: str | None) -> None:
    assert LookCursor.loads(text) == LookCursor()


def test_cursor_round_trip() -> None:
    cursor = LookCursor(7, START, START + timedelta(microseconds=1), "b/é \udcff".encode(errors="ignore").decode())
    assert LookCursor.loads(cursor.dumps()) == cursor
    assert isinstance(json.loads(cursor.dumps()), dict)
