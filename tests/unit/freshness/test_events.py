"""What events say of objects, beside what listings show."""

import os
import tempfile
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_core.freshness.observation import Observation, observe_events
from rag_core.sources.s3_messages import Event
from tests.looking import LONG_AGO, Looking, at, expected, kinds, object_id, objects


@pytest.fixture
def looking(tmp_path: Path) -> Looking:
    made = Looking(tmp_path)
    made.look(objects({"a": "1", "b": "1"}), now=at(0))
    return made


def told(key: str, fingerprint: str | None, time: datetime) -> Event:
    return Event(key, "removed" if fingerprint is None else "created", fingerprint, 1, time, "")


def hear(looking: Looking, *events: Event, now: datetime) -> Observation:
    heard = observe_events(looking.store, looking.config, "handbook", events, now=now, cursor=looking.cursor)
    looking.cursor = heard.cursor
    return heard


def test_events_are_changes_of_their_own_time(looking: Looking) -> None:
    heard = hear(looking, told("a", "2", at(51)), told("b", None, at(52)), told("c", "1", at(53)), now=at(60))
    assert (heard.complete, heard.objects, heard.look) == (True, 3, 2)
    assert kinds(heard) == {object_id("a"): "changed", object_id("b"): "deleted", object_id("c"): "new"}
    rows = {row["object_key"]: row for row in looking.rows()[2:]}
    assert {key: row["changed_at"] for key, row in rows.items()} == {"a": at(51), "b": at(52), "c": at(53)}
    assert {(row["basis"], row["counted"], row["not_before"]) for row in rows.values()} == {("event", True, at(0))}
    assert looking.look(objects({"a": "2", "c": "1"}), now=at(70)).changes.num_rows == 0


def test_what_is_known_is_not_recorded_again(looking: Looking) -> None:
    assert hear(looking, told("a", "1", at(51)), told("x", None, at(52)), now=at(60)).changes.num_rows == 0
    for _ in range(2):
        heard = hear(looking, told("a", "2", at(61)), now=at(70))
    assert (heard.changes.num_rows, heard.look) == (0, 2)


def test_a_time_after_it_was_heard_is_not_believed_and_a_late_event_is(looking: Looking) -> None:
    looking.look(objects({"a": "1", "b": "1"}), now=at(100))
    hear(looking, told("a", "2", at(5000)), told("b", "2", at(40)), now=at(110))
    rows = {row["object_key"]: row for row in looking.rows()[2:]}
    assert (rows["a"]["changed_at"], rows["a"]["basis"]) == (rows["a"]["seen_at"], "bound")
    assert (rows["b"]["changed_at"], rows["b"]["basis"], rows["b"]["not_before"]) == (at(40), "event", at(40))


def test_hearing_is_not_looking(looking: Looking) -> None:
    hear(looking, told("a", "2", at(51)), now=at(60))
    looking.look(objects({"a": "2"}), now=at(70))  # nobody told that b was removed
    row = looking.rows()[-1]
    assert (row["kind"], row["not_before"]) == ("deleted", at(0))


def test_a_source_that_was_never_listed_is_listed_instead(tmp_path: Path) -> None:
    looking = Looking(tmp_path)
    nothing = hear(looking, told("a", "1", at(0)), now=at(1))
    assert (nothing.complete, nothing.problem is not None) == (False, True)  # there is no folder yet
    looking.root.mkdir()
    (looking.root / "a").write_text("x")
    os.utime(looking.root / "a", (LONG_AGO.timestamp(),) * 2)
    heard = hear(looking, told("a", "1", at(0)), now=at(2))
    assert (heard.complete, heard.objects, heard.changes.num_rows) == (True, 1, 1)


STATES = st.dictionaries(st.sampled_from("abc"), st.sampled_from("123"))


@pytest.mark.slow
@given(st.lists(st.tuples(STATES, st.booleans(), st.booleans()), max_size=6))
@settings(max_examples=12, deadline=None)
def test_told_or_listed_the_same_is_recorded(steps: list[tuple[dict[str, str], bool, bool]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        looking, before = Looking(Path(folder)), {}
        looking.look([], now=at(0))
        for number, (states, by_events, twice) in enumerate(steps, start=1):
            events = [told(key, state, at(number)) for key, state in states.items()]
            events += [told(key, None, at(number)) for key in before.keys() - states.keys()]
            seen = (
                hear(looking, *events, now=at(number)) if by_events else looking.look(objects(states), now=at(number))
            )
            assert kinds(seen) == expected(before, states)
            before = states
            if twice:
                assert hear(looking, *events, now=at(number + 0.5)).changes.num_rows == 0
        assert looking.replayed() == set(map(object_id, before))
        assert all(row["changed_at"] >= LONG_AGO for row in looking.rows())
