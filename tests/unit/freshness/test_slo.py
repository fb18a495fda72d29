from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_core.config_freshness import FreshnessConfig, Objective
from rag_core.freshness.slo import MIN_OUTCOMES, STATES, URGENT, Standing, standing
from tests.freshness_facts import (
    NOWS,
    SOURCES,
    at,
    busy_source,
    change,
    change_rows,
    changes_table,
    pass_rows,
    passed,
    passes_table,
)
from tests.unit.freshness import test_latency

FRESHNESS = FreshnessConfig()
OBJECTIVES = st.builds(
    lambda target, within, more: Objective(
        target=target, within_s=within, window_days=1, hard_limit_s=within + more
    ),
    st.sampled_from((0.3, 0.5, 0.9, 0.99)),
    st.sampled_from((60.0, 300.0, 0.5, 900.0, 300.0)),
    st.sampled_from((0.0, 600.0, 90_000.0, 90_000.0, 90_000.0)),
)  # fmt: skip
# Among few changes the budget is exhausted before a burn of 14.4 can be: low limits let all states occur.
LIMITS = st.builds(
    lambda fast, slow: FreshnessConfig(fast_burn=fast, slow_burn=slow),
    st.sampled_from((14.4, 0.8, 0.3)),
    st.sampled_from((6.0, 0.5, 0.1)),
)


def judge(changes: list[dict[str, Any]], passes: list[dict[str, Any]], now: float, **objective: Any) -> Standing:
    tables = changes_table(changes), passes_table(passes)
    return standing(*tables, Objective(**objective), FRESHNESS, source="handbook", now=at(now))


def brute_force(
    changes: list[dict[str, Any]],
    passes: list[dict[str, Any]],
    objective: Objective,
    limits: FreshnessConfig,
    source: str,
    now: datetime,
) -> dict[str, Any]:
    """Say the same with loops alone."""
    within = timedelta(seconds=objective.within_s)
    known: list[tuple[datetime, bool, float | None]] = []
    waiting = []
    for row in test_latency.brute_force([one for one in changes if one["source"] == source], passes, now):
        if not row["counted"]:
            continue
        if row["queryable_at"] is None:
            waiting.append(row["changed_at"])
            if now - row["changed_at"] > within:
                known.append((row["changed_at"] + within, True, None))
        elif row["queryable_at"] - row["changed_at"] > within:
            known.append((row["changed_at"] + within, True, row["latency_s"]))
        else:
            known.append((row["queryable_at"], False, row["latency_s"]))
    window = [one for one in known if one[0] > now - timedelta(days=objective.window_days)]
    bad = sum(late for _, late, _ in window)

    def share(start: datetime) -> float:
        late = [is_late for time, is_late, _ in known if time > start]
        return sum(late) / len(late) / (1 - objective.target) if late else 0.0

    def count(start: datetime) -> int:
        return sum(time > start for time, _, _ in known)

    hours = {"1h": now - timedelta(hours=1), "6h": now - timedelta(hours=6)}
    burn = {name: share(start) for name, start in hours.items()}
    for short, minutes, long in (("5m", 5, "1h"), ("30m", 30, "6h")):
        start = now - timedelta(minutes=minutes)
        while count(start) < MIN_OUTCOMES and start > hours[long]:  # back to the outcome before, and past it
            earlier = [time for time, _, _ in known if time <= start]
            start = max([hours[long], max(earlier, default=hours[long]) - timedelta(microseconds=1)])
        burn[short] = share(start)
    age = max(((now - time) / timedelta(seconds=1) for time in waiting), default=0.0)
    spent = bad / max(1.0, (1 - objective.target) * len(window))
    if age > objective.hard_limit_s:
        state = "hard_limit"
    elif spent > 1 + 1e-9:
        state = "exhausted"
    elif count(hours["1h"]) >= MIN_OUTCOMES and min(burn["1h"], burn["5m"]) > limits.fast_burn:
        state = "fast_burn"
    elif count(hours["6h"]) >= MIN_OUTCOMES and min(burn["6h"], burn["30m"]) > limits.slow_burn:
        state = "slow_burn"
    else:
        state = "ok"
    latencies = [latency for _, _, latency in window if latency is not None]
    return {
        "counted": len(window), "good": len(window) - bad, "bad": bad, "pending": len(waiting), "data_age_s": age,
        "attained": (len(window) - bad) / len(window) if window else None, "budget_spent": spent, "burn": burn,
        "max_s": max(latencies, default=None), "state": state,
        "oldest": min(waiting, default=None),
    }  # fmt: skip


FACTS = st.one_of(st.tuples(change_rows(), pass_rows()), st.integers(0, 9_999).map(busy_source))


Facts = tuple[list[dict[str, Any]], list[dict[str, Any]]]


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(FACTS, OBJECTIVES, LIMITS, st.sampled_from(SOURCES), NOWS, st.sampled_from((0, 0, 0, 30, 240, 1_440, 1_500)))
def test_equals_plain_loops(
    facts: Facts, objective: Objective, limits: FreshnessConfig, source: str, now: datetime, later: int
) -> None:
    compare(facts, objective, limits, source, now + timedelta(minutes=later))


@pytest.mark.slow
def test_equals_plain_loops_in_every_state() -> None:
    met = set()
    for seed in range(120):
        limits = FreshnessConfig(fast_burn=(14.4, 0.8, 0.3)[seed % 3], slow_burn=(0.2, 6.0)[seed % 2])
        hard_limit_s = (90_000.0, 90_000.0, 600.0)[seed // 7 % 3]
        objective = Objective(target=(0.3, 0.5)[seed // 2 % 2], within_s=300, window_days=1, hard_limit_s=hard_limit_s)
        met.add(compare(busy_source(seed), objective, limits, "handbook", at(6_000 + 41 * seed)))
    assert met == set(STATES)


def compare(facts: Facts, objective: Objective, limits: FreshnessConfig, source: str, now: datetime) -> str:
    """Assert that plain loops say the same, and return the state."""
    changes, passes = facts
    found = standing(changes_table(changes), passes_table(passes), objective, limits, source=source, now=now)
    expected = brute_force(changes, passes, objective, limits, source, now)
    oldest, burn = expected.pop("oldest"), expected.pop("burn")
    assert (found.oldest_pending and found.oldest_pending[1]) == oldest
    assert found.burn == pytest.approx(burn)
    assert {name: getattr(found, name) for name in expected} == pytest.approx(expected)
    assert (found.state == "ok") == (not found.reasons)
    return found.state


@pytest.mark.slow
@settings(deadline=None)
@given(change_rows(), pass_rows(), NOWS)
def test_what_is_not_counted_and_other_partitions_change_nothing(
    changes: list[dict[str, Any]], passes: list[dict[str, Any]], now: datetime
) -> None:
    loads = [{**row, "change_id": f"load {row['change_id']}", "counted": False} for row in changes]
    backfills = [{**one, "partition_key": "handbook__77", "reason": "backfill"} for one in passes]
    objective = Objective()
    before, after = (
        standing(changes_table(some), passes_table(ways), objective, FRESHNESS, source="handbook", now=now)
        for some, ways in ((changes, passes), (loads + changes, backfills + passes))
    )
    assert before == after


def test_at_the_limit_is_good_and_beyond_it_is_bad() -> None:
    limit = [change(1, 0)]
    assert judge(limit, [passed(1, 300)], 400).good == 1
    assert judge(limit, [passed(1, 300.000001)], 400).bad == 1
    assert (judge(limit, [], 300).counted, judge(limit, [], 300.000001).bad) == (0, 1)


def test_a_late_change_is_counted_once_and_when_it_was_late() -> None:
    for now in (301, 10_000):
        found = judge([change(1, 0)], [passed(1, 5_000)], now)
        assert (found.counted, found.bad) == (1, 1)
    day = 86_400
    late = ([change(1, 0)], [passed(1, day)])
    assert judge(*late, day + 299.999999, window_days=1).bad == 1
    assert judge(*late, day + 300, window_days=1).counted == 0, "the begin of a window is not in it"


def test_the_budget_is_at_least_one_change() -> None:
    several = [change(number, number) for number in range(50)]
    found = judge([change(99, -400), *several], [passed(60, 70)], 100)
    assert (found.attained, found.bad, found.budget_spent, found.state) == (50 / 51, 1, 1.0, "ok")
    two = judge([change(98, -400), change(99, -400), *several], [passed(60, 70)], 100)
    assert (two.budget_spent, two.state) == (2.0, "exhausted")


def test_all_of_the_budget_is_not_more_than_all() -> None:
    several = [change(number, 0) for number in range(9)]
    found = judge([change(99, -400), *several], [passed(60, 70)], 100, target=0.9)
    assert (found.attained, found.state) == (0.9, "ok")


DAY = 86_400.0


class Replay:
    """A source with many good changes long ago, so that its budget is large, and the changes of a test after DAY."""

    def __init__(self, changes: list[dict[str, Any]], passes: list[dict[str, Any]], good: int = 20_000) -> None:
        old = changes_table([change(0, 1_000)]).take([0] * good)
        old = old.set_column(0, old.schema.field(0), pa.array([f"old {number}" for number in range(good)]))
        self.changes = pa.concat_tables([old, changes_table(changes)]).combine_chunks()
        self.passes = passes_table([passed(1_000, 1_010), *passes])

    def at(self, second: float, **objective: Any) -> Standing:
        """Judge at a time, in seconds after DAY."""
        made = Objective(**objective)
        return standing(self.changes, self.passes, made, FRESHNESS, source="handbook", now=at(DAY + second))


@pytest.mark.slow
def test_states_in_the_order_of_an_outage() -> None:
    replay = Replay([change(number, DAY + number) for number in range(40)], [])
    seen: dict[str, int] = {}
    for minute in range(0, 130):
        seen.setdefault(replay.at(minute * 60).state, minute)
    assert list(seen) == ["ok", "fast_burn", "hard_limit"]
    assert seen["fast_burn"] <= 6, "known a minute after the first changes were late"
    assert seen["hard_limit"] == 61


def test_a_burn_ends_soon_after_it_was_mended() -> None:
    late = [change(number, DAY + number) for number in range(40)]
    good = [change(100 + number, DAY + 900 + number) for number in range(200)]
    mended = [passed(DAY + 890, DAY + 900), *[passed(DAY + 900 + n, DAY + 905 + n) for n in range(200)]]
    replay = Replay([*late, *good], mended)
    assert replay.at(600).state == "fast_burn"
    assert replay.at(900 + 300).state != "fast_burn"
    assert replay.at(9 * 3_600).state == "ok"


def test_a_slow_burn_is_told_from_a_fast_one() -> None:
    """For six hours one of ten changes is late: ten times too fast, while 14.4 would be an emergency."""
    changes, passes = [], []
    for number in range(720):
        late = number % 10 == 0
        second = DAY + number * 30
        changes.append(change(number, second, partition_key="handbook__01" if late else "handbook__00"))
        passes.append(passed(second, second + 10))
    found = Replay(changes, passes).at(21_600, hard_limit_s=90_000)
    assert found.state == "slow_burn"
    assert found.burn["6h"] == pytest.approx(10, rel=0.05)
    assert found.state not in URGENT


@pytest.mark.slow
@pytest.mark.parametrize("bad", (1, 5, MIN_OUTCOMES - 1))
def test_few_changes_do_not_flap(bad: int) -> None:
    """However many of fewer than ten changes are late, only the budget and the hard limit speak."""
    replay = Replay([change(number, DAY + number * 60) for number in range(bad)], [])
    assert {replay.at(second, hard_limit_s=9_000).state for second in range(0, 9_000, 97)} == {"ok"}


@pytest.mark.slow
def test_a_short_window_with_few_changes_does_not_flap() -> None:
    """Every seven minutes a change, all late: five minutes hold one or none, and the state stays all the time."""
    seconds = [DAY + number * 420 for number in range(60)]
    passes = [passed(second, second + 310) for second in seconds]
    replay = Replay([change(number, second) for number, second in enumerate(seconds)], passes)
    states = [replay.at(second).state for second in range(0, 25_000, 122)]
    first = states.index("slow_burn")
    assert set(states[:first]) == {"ok"}
    assert set(states[first:]) == {"slow_burn"}


def test_data_age_is_that_of_the_oldest_pending_change() -> None:
    changes = [change(1, 0), change(2, 50), change(3, 20, counted=False), change(4, 100, object_key=None)]
    found = judge(changes, [passed(10, 20)], 200)
    assert (found.pending, found.data_age_s, found.oldest_pending) == (2, 150.0, ("2.md", at(50)))
    found = judge(changes, [passed(60, 70)], 200)
    assert found.oldest_pending == (f"{4:032x}", at(100)), "an object without a key is named by its id"


def test_nothing_is_pending_nothing_is_old() -> None:
    found = judge([change(1, 0)], [passed(1, 2)], 10_000_000)
    assert (found.data_age_s, found.oldest_pending, found.state) == (0.0, None, "ok")
    assert (found.counted, found.attained, found.p95_s, found.budget_left) == (0, None, None, 1.0)


def test_a_standing_is_json() -> None:
    found = judge([change(1, 0)], [], 4_000).to_dict()
    assert found["oldest_pending"] == {"object_key": "1.md", "changed_at": at(0)}
    assert found["objective"]["within_s"] == 300
    assert found["state"] in STATES
