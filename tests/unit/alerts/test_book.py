"""The book: every begin and end is told once by every channel, whatever fails and whenever the process is restarted."""

import json
import logging
import os
import tempfile
import threading
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_core.alerts.book import ENDED_AFTER_S, AlertBook
from rag_core.alerts.delivery import DROPPED_AFTER
from rag_core.alerts.history import append_alerts, read_alerts
from rag_core.alerts.model import DeliveryError, Message
from rag_core.alerts.state import STATE_PATH, load_state
from rag_core.errors import TransientError
from rag_core.tables.store import Store
from tests.alert_support import DOWN, NOW, REFUSED, Recorder, finding

KEYS = ("failed_run/a", "stuck_partition/x__00", "freshness_burn/x")
REPEAT_S = 3_600.0


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def book_of(store: Store) -> AlertBook:
    return AlertBook(store, repeat_s=REPEAT_S)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


STEP = st.tuples(
    st.sampled_from([5, 15, 30, 61, 300, 2_000]),  # seconds since the step before
    st.sets(st.sampled_from(KEYS)),  # what is wrong
    st.sampled_from([None, DOWN, REFUSED, ValueError("a fault of the channel")]),  # how the one channel fails
    st.sampled_from([None, DOWN]),  # how the other one does
    st.booleans(),  # the process is restarted before delivery
    st.booleans(),  # and after it
)


def expected(presence: Sequence[tuple[datetime, bool]]) -> list[tuple[str, datetime]]:
    """Say when something begins and ends: straight from the definition."""
    events: list[tuple[str, datetime]] = []
    for number, (time, present) in enumerate(presence):
        is_open = bool(events) and events[-1][0] == "firing"
        if present and not is_open:
            events.append(("firing", time))
        if not present and is_open:
            last_seen = max(n for n in range(number) if presence[n][1])
            first_missing = presence[last_seen + 1][0]
            if number - last_seen >= 2 and (time - first_missing).total_seconds() >= ENDED_AFTER_S:
                events.append(("resolved", time))
    return events


@pytest.mark.slow
@settings(max_examples=75, deadline=None)
@given(st.lists(STEP, min_size=1, max_size=14))
def test_every_begin_and_end_is_told_once_by_each_channel(
    steps: list[tuple[int, set[str], Exception | None, Exception | None, bool, bool]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, channels = Store(folder), [Recorder("one"), Recorder("two")]
        presence: dict[str, list[tuple[datetime, bool]]] = {key: [] for key in KEYS}
        book, now = book_of(store), NOW
        for seconds, wrong, *failures, before, behind in steps:
            now += timedelta(seconds=seconds)
            for key in KEYS:
                presence[key].append((now, key in wrong))
            for channel, failure in zip(channels, failures, strict=True):
                channel.failure = failure
            book.update([finding(key) for key in sorted(wrong)], now)
            book = book_of(store) if before else book
            book.deliver(channels, now)
            book = book_of(store) if behind else book
        for channel in channels:
            channel.failure = None
        for hours in range(1, 3):  # longer than any pause between two tries
            book_of(store).deliver(channels, now + timedelta(hours=hours))
        book = book_of(store)
        assert not book.outbox
        for channel in channels:
            ids = [message.message_id for message in channel.messages]
            assert len(ids) == len(set(ids))
            for key in KEYS:
                of_key = [message for message in channel.messages if key in message.keys]
                begun_and_ended = [(one.state, one.at) for one in of_key if one.state != "repeated"]
                assert begun_and_ended == expected(presence[key])
                assert [one.at for one in of_key] == sorted(one.at for one in of_key)
        in_history = [(alert.alert_key, alert.state, alert.at) for alert in load_state(store).unwritten]
        by_channel = sorted((key, one.state, one.at) for one in channels[0].messages for key in one.keys)
        assert sorted(in_history) == by_channel
        assert set(book.open) == {key for key in KEYS if (e := expected(presence[key])) and e[-1][0] == "firing"}


def test_a_repetition_comes_after_repeat_s_and_when_it_becomes_critical(store: Store) -> None:
    book, channel = book_of(store), Recorder()
    worse = finding(severity="critical")
    for seconds, one in ((0, finding()), (60, finding()), (90, worse), (120, finding()), (150, worse),
                         (90 + REPEAT_S, finding())):  # fmt: skip
        book.update([one], after(seconds))
        book.deliver([channel], after(seconds))
    said = [(one.state, one.severity, one.at) for one in channel.messages]
    assert said == [
        ("firing", "warning", NOW),
        ("repeated", "critical", after(90)),  # and not again because it swings
        ("repeated", "warning", after(90 + REPEAT_S)),
    ]
    assert {one.since for one in channel.messages} == {NOW}


def test_what_flickers_is_one_alert(store: Store) -> None:
    book = book_of(store)
    for tick in range(40):
        book.update([finding()] if tick % 3 == 0 else [], after(15 * tick))
    assert [pending.state for pending in book.outbox] == ["firing"]


def test_a_kind_that_could_not_be_evaluated_neither_ends_nor_counts_as_missing(store: Store) -> None:
    book = book_of(store)
    book.update([finding()], NOW)
    for tick in range(1, 20):
        assert book.update([], after(60 * tick), unknown={"failed_run"}) == []
    assert book.update([], after(1_260)) == []
    assert [alert.state for alert in book.update([], after(1_321))] == ["resolved"]


def test_more_than_five_of_a_group_are_one_message(store: Store) -> None:
    book, channel = book_of(store), Recorder()
    several = [finding(f"stuck_partition/x__{n:02d}", group="stuck_partition/x") for n in range(7)]
    other = [finding(f"stuck_partition/y__{n:02d}", group="stuck_partition/y") for n in range(5)]
    assert len(book.update([*several, *other], NOW)) == 12
    book.deliver([channel], NOW)
    assert sorted(len(message.keys) for message in channel.messages) == [1, 1, 1, 1, 1, 7]
    many = next(message for message in channel.messages if len(message.keys) == 7)
    assert many.headline == "WARNING: 7 x stuck partition of x"
    assert all(one.title in many.body for one in several)
    assert many.body.endswith("docs/operations.md#stuck_partition")
    book.update(several[1:], after(60))
    ended = [alert.alert_key for alert in book.update(several[1:], after(121)) if alert.state == "resolved"]
    assert several[0].key in ended


@pytest.mark.slow
def test_a_channel_that_is_down_is_left_alone_and_the_others_go_on(store: Store) -> None:
    book, down, up = book_of(store), Recorder("down"), Recorder("up")
    down.failure = DOWN
    book.update([finding(key) for key in KEYS], NOW)
    outcomes = book.deliver([down, up], NOW)
    assert [(one.channel, one.delivered, one.waiting, one.error) for one in outcomes] == [
        ("down", 0, 3, "recorder is down"),
        ("up", 3, 0, ""),
    ]
    for second in range(1, 1_000):
        book.deliver([down, up], after(second))
    assert down.tried == 1 + 6  # after 10, 30, 70, 150, 310, 630 s: once for all messages
    assert up.tried == 3
    down.failure = None
    book = book_of(store)
    book.deliver([down, up], after(5_000))
    assert down.told == up.told
    tried, down.failure = down.tried, DOWN
    book.update([finding("failed_run/new")], after(6_000))
    for seconds in (6_000, 6_009, 6_010):
        book.deliver([down], after(seconds))
    assert down.tried == tried + 2, "what failed before it worked does not count any more"


def test_a_server_that_asks_to_be_left_alone_is(store: Store) -> None:
    book, channel = book_of(store), Recorder()
    channel.failure = DeliveryError("too many", retry_after_s=120)
    book.update([finding()], NOW)
    for second in range(0, 130, 10):
        book.deliver([channel], after(second))
    assert channel.tried == 2


def test_a_message_that_is_refused_holds_only_its_own_alert(store: Store) -> None:
    class Picky(Recorder):
        def deliver(self, message: Message) -> str:
            if message.keys == (KEYS[0],) and message.state == "firing" and self.failure:
                raise self.failure
            self.messages.append(message)
            return "kept"

    book, channel = book_of(store), Picky()
    channel.failure = REFUSED
    book.update([finding(KEYS[0]), finding(KEYS[1])], NOW)
    for seconds in (60, 121):
        book.update([], after(seconds))
    book.deliver([channel], after(121))
    assert channel.told == [(KEYS[1], "firing"), (KEYS[1], "resolved")]  # not the end of what did not begin
    channel.failure = None
    book.deliver([channel], after(200))
    assert channel.told[2:] == [(KEYS[0], "firing"), (KEYS[0], "resolved")]


def test_what_is_too_old_is_dropped_and_logged(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    book, channel = book_of(store), Recorder()
    channel.failure = DOWN
    book.update([finding()], NOW)
    book.deliver([channel], NOW)
    late = NOW + DROPPED_AFTER + timedelta(seconds=1)
    with caplog.at_level(logging.ERROR):
        (outcome,) = book_of(store).deliver([channel], late)
    assert (outcome.dropped, outcome.waiting) == (1, 0)
    assert "failed_run/build_index is wrong" in caplog.text
    assert "recorder is down" in caplog.text
    assert not book_of(store).outbox


def test_a_crash_between_delivery_and_its_note_repeats_the_message_and_loses_none(store: Store) -> None:
    class Crash(BaseException):
        pass

    class Dying(Recorder):
        def deliver(self, message: Message) -> str:
            super().deliver(message)
            if len(self.messages) == 2:
                raise Crash
            return "kept"

    book, channel = book_of(store), Dying()
    book.update([finding(key) for key in KEYS], NOW)
    with pytest.raises(Crash):
        book.deliver([channel], NOW)
    book_of(store).deliver([channel], NOW)
    ids = [message.message_id for message in channel.messages]
    assert len(ids) == 4
    assert len(set(ids)) == 3
    assert ids[1] == ids[2]  # receivers can tell that it is the same


def test_a_crash_before_the_state_is_written_tells_it_at_the_next_evaluation(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("rag_core.alerts.book.save_state", fails)
        with pytest.raises(OSError, match="no space"):
            book_of(store).update([finding()], NOW)
    assert [alert.state for alert in book_of(store).update([finding()], after(15))] == ["firing"]


def test_a_slow_channel_does_not_make_another_wait(store: Store) -> None:
    fast_is_done = threading.Event()

    class Slow(Recorder):
        def deliver(self, message: Message) -> str:
            assert fast_is_done.wait(20), "the other channel waits for this one"
            return super().deliver(message)

    class Fast(Recorder):
        def deliver(self, message: Message) -> str:
            fast_is_done.set()
            return super().deliver(message)

    book = book_of(store)
    book.update([finding()], NOW)
    assert [one.delivered for one in book.deliver([Slow("slow"), Fast("fast")], NOW)] == [1, 1]


def test_a_channel_stops_after_its_time_and_goes_on_the_next_time(store: Store) -> None:
    book, channel = book_of(store), Recorder()
    book.update([finding(key) for key in KEYS], NOW)
    (first,) = book.deliver([channel], NOW, budget_s=-1)
    (second,) = book.deliver([channel], after(15))
    assert (first.delivered, first.waiting, second.delivered) == (0, 3, 3)


def test_the_history_is_appended_and_shown_once(store: Store) -> None:
    book = book_of(store)
    told = book.update([finding()], NOW)
    book.write_history()
    append_alerts(store, told)  # as after a crash between the append and its note
    for seconds in (60, 121):
        book.update([], after(seconds))
    book.write_history()
    book.write_history()
    rows = read_alerts(store, 10)
    assert [(row["state"], row["at"], row["since"]) for row in rows] == [
        ("resolved", after(121), NOW),
        ("firing", NOW, NOW),
    ]
    assert len({row["alert_id"] for row in rows}) == 1
    assert not load_state(store).unwritten
    assert len(read_alerts(store, 1)) == 1


def test_a_state_that_cannot_be_read_is_kept_aside(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    path = Path(store.root) / STATE_PATH
    path.parent.mkdir(parents=True)
    for broken in ("{", "[]", json.dumps({"open": {"a": {}}})):
        path.write_text(broken)
        assert book_of(store).open == {}
        assert path.with_name("alerts.json.unreadable").read_text() == broken
    assert "begun anew" in caplog.text


def test_a_book_is_used_by_one_process_at_a_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag_core.alerts.book._LOCK_WAIT_S", 0.0)
    alone = AlertBook.locked(store, repeat_s=60)
    with AlertBook.locked(store, repeat_s=60), pytest.raises(TransientError, match="locked by another"):
        alone.__enter__()
    with AlertBook.locked(store, repeat_s=60) as book:
        assert book.open == {}


def test_file_names_that_are_no_text_are_told(store: Store) -> None:
    book, channel = book_of(store), Recorder()
    book.update([finding(title=f"lost {os.fsdecode(b'caf' + bytes([0xE9]))}")], NOW)
    book.deliver([channel], NOW)
    assert channel.messages[0].title == "lost caf?"
