"""How a source stands to its objective: the error budget, how fast it is spent, and the age of its data. Pure."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rag_core.config_freshness import FreshnessConfig, Objective
from rag_core.freshness.latency import Micros, latencies, micros, micros_of
from rag_core.freshness.latency import pending as pending_rows

State = Literal["ok", "slow_burn", "fast_burn", "exhausted", "hard_limit"]

STATES: Final[tuple[State, ...]] = ("hard_limit", "exhausted", "fast_burn", "slow_burn", "ok")
"""The worst first: of all that hold, the first is a source's state."""

URGENT: Final = frozenset({"hard_limit", "exhausted", "fast_burn"})
"""States that need somebody at once."""

WINDOWS_S: Final = {"5m": 300, "30m": 1_800, "1h": 3_600, "6h": 21_600}
_LONG: Final = {"5m": "1h", "30m": "6h"}
_SAID: Final = {"5m": "5 minutes", "30m": "30 minutes", "1h": "1 hour", "6h": "6 hours"}

MIN_OUTCOMES: Final = 10
"""Fewer outcomes than these say nothing about a rate."""


def check_name(source: str) -> str:
    """Return the name of the check of `index_partitions` that shows how a source stands."""
    return f"freshness__{source}"


@dataclass(frozen=True)
class Outcomes:
    """Outcomes of the changes that an objective counts, in the order in which they became known.

    Attributes:
        at: (n,) when an outcome was known: a good one when the change was searchable, a bad one `within_s` after it.
        bad: (n,) whether the change was late.
        latency_s: (n,) NaN as long as it is not searchable.
    """

    at: Micros
    bad: NDArray[np.bool_]
    latency_s: NDArray[np.float64]

    def since(self, start: int) -> "Outcomes":
        """Return those after a time, which itself is not in."""
        first = int(np.searchsorted(self.at, start, side="right"))
        return Outcomes(self.at[first:], self.bad[first:], self.latency_s[first:])


@dataclass(frozen=True)
class Standing:
    """How a source stands to its objective.

    Attributes:
        source: Its name.
        now: When this was so.
        objective: What is promised.
        counted: Outcomes within the objective's window; `good` and `bad` of them.
        pending: Changes that are not searchable yet; those older than `within_s` are among `bad` as well.
        data_age_s: Since the oldest pending change, 0 if there is none.
        oldest_pending: Key of that object, and when it changed.
        attained: Share of good outcomes; None if there is no outcome.
        budget_spent: Share of the error budget that bad outcomes took; 1.0 is all, and it can be more.
        burn: By window ("5m", "30m", "1h", "6h") how many times too fast the budget is spent.
        p50_s: Median latency of the counted changes that are searchable; None if none is.
        p95_s: Their 95th percentile.
        max_s: The longest.
        state: The worst of what holds.
        reasons: What holds, a sentence each, the worst first.
    """

    source: str
    now: datetime
    objective: Objective
    counted: int
    good: int
    bad: int
    pending: int
    data_age_s: float
    oldest_pending: tuple[str, datetime] | None
    attained: float | None
    budget_spent: float
    burn: dict[str, float]
    p50_s: float | None
    p95_s: float | None
    max_s: float | None
    state: State
    reasons: tuple[str, ...]

    @property
    def budget_left(self) -> float:
        """Share of the error budget that is left; below 0, more was spent than there was."""
        return 1.0 - self.budget_spent

    def to_dict(self) -> dict[str, Any]:
        """Return it in values that JSON has, times as datetimes."""
        oldest = self.oldest_pending and dict(zip(("object_key", "changed_at"), self.oldest_pending, strict=True))
        return {**asdict(self), "objective": self.objective.model_dump(), "oldest_pending": oldest}


def standing(
    changes: pa.Table,
    passes: pa.Table,
    objective: Objective,
    freshness: FreshnessConfig,
    *,
    source: str,
    now: datetime,
) -> Standing:
    """Judge a source by rows of `source_changes` and `passes`, of any source; `standing_of` says how."""
    own = changes.filter(pc.equal(changes["source"], source))
    return standing_of(latencies(own, passes, now=now), objective, freshness, source=source, now=now)


def standing_of(
    rows: pa.Table, objective: Objective, freshness: FreshnessConfig, *, source: str, now: datetime
) -> Standing:
    """Judge a source by its `latencies`.

    A counted change is *good* if it was searchable within `within_s`, *bad* as soon as it is not, whether it still is
    pending or not. It belongs to a window (whose begin is not in it, and whose end is) by when that was known. Younger
    pending changes do not count yet. First loads and backfills never do.

    The error budget is `1 - target` of the counted changes, and at least one change: a source with few changes is not
    in ruins because of one. The burn rate of a window is the share of bad outcomes in it, over `1 - target`: 1 spends
    the budget exactly in the objective's window.

    States, the worst first: `hard_limit`: the data is older than `hard_limit_s`. `exhausted`: more than the budget is
    spent. `fast_burn`: the rates of 1 hour and of 5 minutes are above `freshness.fast_burn`. `slow_burn`: those of
    6 hours and of 30 minutes are above `freshness.slow_burn`. `ok`.

    A rate over very few changes jumps between nothing and all, and the state would flap. So a burn needs at least
    MIN_OUTCOMES outcomes in its long window, and where a short window holds fewer, it reaches back to that many, at
    most to the begin of the long one. What goes wrong with fewer changes is found by the hard limit.

    Source of the rates and of windows in pairs: Google, The Site Reliability Workbook, chapter 5 "Alerting on SLOs",
    6: Multiwindow, Multi-Burn-Rate Alerts, and "Low-Traffic Services and Error Budget Alerting".
    """
    present = micros_of(now)
    known = outcomes(rows, objective, now=now)
    window = known.since(present - objective.window_days * 86_400_000_000)
    counted, bad = len(window.at), int(window.bad.sum())
    waiting = rows.filter(pc.and_(rows["counted"], pc.is_null(rows["queryable_at"])))
    oldest = next(iter(pending_rows(waiting, 1)), None)
    done = window.latency_s[~np.isnan(window.latency_s)]
    p50, p95, longest = (float(value) for value in np.percentile(done, (50, 95, 100))) if done.size else (None,) * 3
    burn, frequent = _burn(known, objective, present)
    data_age_s = float(oldest["age_s"]) if oldest else 0.0
    spent = budget_spent(bad, counted, objective)
    found = _findings(data_age_s, spent, bad, counted, burn, frequent, objective, freshness)
    return Standing(
        source=source,
        now=now,
        objective=objective,
        counted=counted,
        good=counted - bad,
        bad=bad,
        pending=waiting.num_rows,
        data_age_s=data_age_s,
        oldest_pending=(oldest["object_key"] or oldest["object_id"], oldest["changed_at"]) if oldest else None,
        attained=(counted - bad) / counted if counted else None,
        budget_spent=spent,
        burn=burn,
        p50_s=p50,
        p95_s=p95,
        max_s=longest,
        state=next(iter(found), "ok"),
        reasons=tuple(found.values()),
    )


def outcomes(rows: pa.Table, objective: Objective, *, now: datetime) -> Outcomes:
    """Return the outcomes that are known by now, of the `latencies` of a source."""
    rows = rows.filter(rows["counted"])
    deadline = micros(rows["changed_at"]) + round(objective.within_s * 1e6)
    queryable = micros(rows["queryable_at"])
    bad = queryable > deadline
    at = np.where(bad, deadline, queryable)
    known = np.flatnonzero(~bad | (deadline < micros_of(now)))
    known = known[np.argsort(at[known], kind="stable")]
    latency = rows["latency_s"].fill_null(np.nan).to_numpy()
    return Outcomes(at[known], bad[known], latency[known])


def budget_spent(bad: int, counted: int, objective: Objective) -> float:
    """Return which share of the error budget bad outcomes took: 1.0 is all of it."""
    return bad / max(1.0, (1 - objective.target) * counted)


def _burn(known: Outcomes, objective: Objective, present: int) -> tuple[dict[str, float], set[str]]:
    """Return the rate of each window, and the names of the long windows with enough outcomes for an alarm."""
    rates: dict[str, float] = {}
    frequent: set[str] = set()
    for name, seconds in WINDOWS_S.items():
        start = present - seconds * 1_000_000
        long = _LONG.get(name)
        if long is not None:
            earliest = present - WINDOWS_S[long] * 1_000_000
            enough = int(known.at[-MIN_OUTCOMES]) - 1 if len(known.at) >= MIN_OUTCOMES else earliest
            start = max(earliest, min(start, enough))
        window = known.since(start)
        rates[name] = float(window.bad.mean()) / (1 - objective.target) if len(window.at) else 0.0
        if long is None and len(window.at) >= MIN_OUTCOMES:
            frequent.add(name)
    return rates, frequent


def _findings(
    data_age_s: float,
    spent: float,
    bad: int,
    counted: int,
    burn: dict[str, float],
    frequent: set[str],
    objective: Objective,
    freshness: FreshnessConfig,
) -> dict[State, str]:
    """Return the states that hold and why, the worst first."""
    found: dict[State, str] = {}
    if data_age_s > objective.hard_limit_s:
        found["hard_limit"] = (
            f"the oldest change that is not searchable was made {data_age_s:,.0f} s ago; "
            f"at most {objective.hard_limit_s:,.0f} s are allowed"
        )
    if spent > 1 + 1e-9:  # 1 - target has a rounding error
        found["exhausted"] = (
            f"{bad:,} of {counted:,} changes in {objective.window_days} days were not searchable within "
            f"{objective.within_s:g} s; {100 * objective.target:.10g} % are promised to be"
        )
    limits: tuple[tuple[State, str, float], ...] = (
        ("fast_burn", "5m", freshness.fast_burn),
        ("slow_burn", "30m", freshness.slow_burn),
    )
    for state, short, limit in limits:
        long = _LONG[short]
        if long in frequent and burn[short] > limit and burn[long] > limit:
            found[state] = (
                f"the error budget is spent {burn[long]:.1f} times too fast over {_SAID[long]} and {burn[short]:.1f} "
                f"times over {_SAID[short]}; alarming above {limit:g}"
            )
    return found
