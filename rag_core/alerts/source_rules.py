"""Rules about sources: how fresh they are, whether they are looked at, and what kept a look from working."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

from rag_core.alerts.facts import LookFact, PoisonFact, ProblemFact
from rag_core.alerts.findings import asset_link, automation_link, make_finding, utc
from rag_core.alerts.model import Finding

if TYPE_CHECKING:
    from rag_core.freshness.slo import Standing

LISTING_FAILED_FOR_S: Final = 60.0
"""A listing that fails is no alarm before it has failed for this long: the next look may go well."""

MISSED_TICKS: Final = 10


def freshness_burn(standings: Iterable["Standing"], ui_url: str) -> list[Finding]:
    """Find sources whose error budget is spent too fast, or is spent."""
    found = []
    for one in standings:
        # The hard limit is an alert of its own; what else holds stands behind it.
        reasons = one.reasons[1:] if one.state == "hard_limit" else one.reasons
        if one.state == "ok" or not reasons:
            continue
        attained = (
            "" if one.attained is None else f" So far {one.attained:.2%} of {one.counted:,} changes were in time."
        )
        found.append(
            make_finding(
                "freshness_burn",
                one.source,
                "warning" if one.state == "slow_burn" else "critical",
                f"changes of {one.source} become searchable too late, too often",
                f"{_sentences(reasons)}{attained} {one.pending:,} changes are not searchable now.",
                "see which partitions wait or fail (rag status), and whether runs are queued or slow.",
                asset_link(ui_url, "index_partitions"),
            )
        )
    return found


def freshness_hard_limit(standings: Iterable["Standing"], ui_url: str) -> list[Finding]:
    """Find sources with a change that has not been searchable for longer than their hard limit."""
    found = []
    for one in standings:
        if one.data_age_s <= one.objective.hard_limit_s:
            continue
        oldest = ""
        if one.oldest_pending is not None:
            oldest = f" The oldest is {one.oldest_pending[0]}, changed {utc(one.oldest_pending[1])}."
        found.append(
            make_finding(
                "freshness_hard_limit",
                one.source,
                "critical",
                f"a change of {one.source} is not searchable since {one.data_age_s / 60:,.0f} minutes",
                f"{one.pending:,} changes are not searchable; the limit is {one.objective.hard_limit_s / 60:,.0f} "
                f"minutes.{oldest}",
                "look for stuck partitions, failed runs and a queue that does not move; then rag run by hand.",
                asset_link(ui_url, "index_partitions"),
            )
        )
    return found


def listing_problem(problems: Iterable[ProblemFact], ui_url: str, *, now: datetime) -> list[Finding]:
    """Find sources that cannot be listed, or of which too much is gone to be believed."""
    return [
        make_finding(
            "listing_problem",
            one.source,
            "critical" if one.is_shrink else "warning",
            f"{one.source} lost too many objects at once" if one.is_shrink else f"{one.source} cannot be listed",
            f"Since {utc(one.since)}. {one.message}\nNothing of it is deleted from the index meanwhile.",
            "see whether the source is mounted, and its address right. If the objects are gone on purpose: rag run "
            f"--source {one.source} --accept-deletions."
            if one.is_shrink
            else "see whether the source is there and readable; the next look goes on by itself.",
            automation_link(ui_url),
        )
        for one in problems
        if one.is_shrink or (now - one.since).total_seconds() >= LISTING_FAILED_FOR_S
    ]


def poison_event(poisons: Iterable[PoisonFact], ui_url: str) -> list[Finding]:
    """Find sources with notifications that could not be understood."""
    return [
        make_finding(
            "poison_event",
            one.source,
            "warning",
            f"{one.count:,} notifications of {one.source} could not be understood",
            f"They were set aside in {one.folder}, for example {', '.join(one.examples)}.",
            "read one; mend what sends it; delete the files. What it told of is found by the next full listing.",
            automation_link(ui_url),
        )
        for one in poisons
        if one.count
    ]


def missed_look(
    looks: Iterable[LookFact],
    ui_url: str,
    *,
    tick_s: float,
    list_budget_s: float,
    watched_since: datetime,
    now: datetime,
) -> list[Finding]:
    """Find sources that were not looked at for ten ticks, and three listings' time besides.

    Args:
        looks: The newest completed look at each source.
        ui_url: Address of the Dagster UI.
        tick_s: Seconds between two looks.
        list_budget_s: Time for listing in one look.
        watched_since: Since when this has been evaluated without a gap: a platform that was off missed nothing.
        now: Time of the evaluation.
    """
    limit_s = MISSED_TICKS * tick_s + 3 * list_budget_s
    return [
        make_finding(
            "missed_look",
            one.source,
            "critical",
            f"{one.source} was not looked at for {limit_s:,.0f} s",
            f"The last look that was completed began {utc(one.started_at)}; one is due every {tick_s:g} s. Changes of "
            f"this source are not seen.",
            "see whether its sensor is on and what its last ticks say, and whether the daemon runs.",
            automation_link(ui_url),
        )
        for one in looks
        if (now - max(one.started_at, watched_since)).total_seconds() > limit_s
    ]


def _sentences(reasons: Sequence[str]) -> str:
    return " ".join(f"{reason[:1].upper()}{reason[1:].rstrip('.')}." for reason in reasons)
