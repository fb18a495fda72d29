"""Rules: pure functions from facts to findings. `docs/operations.md` says of each kind what it means and when it ends.

Here are those about runs, partitions and the index; those about sources are in `rag_core.alerts.source_rules`.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final

from rag_core.alerts.facts import CheckFact, StuckFact, VerdictFact
from rag_core.alerts.failing import FailingRun
from rag_core.alerts.findings import asset_link, cut, make_finding, run_link, utc
from rag_core.alerts.model import Finding, Severity
from rag_core.partitions import source_of
from rag_core.quality.results import figure

if TYPE_CHECKING:
    from rag_core.reports.outcomes import Outcome

Rule = Callable[[], Iterable[Finding]]

WAITING_FOR_S: Final = 900.0
"""An index that is incomplete is no alarm before it was so for this long, nor while runs go on that may complete it."""


def evaluate(rules: Mapping[str, Rule]) -> tuple[list[Finding], set[str]]:
    """Evaluate rules, each by itself.

    Args:
        rules: Kind of alert -> what gathers the facts and finds what is wrong.

    Returns:
        All findings, and the kinds that could not be evaluated. A rule that raises is a finding itself.
    """
    findings: list[Finding] = []
    broken: set[str] = set()
    for kind, rule in rules.items():
        try:
            findings += list(rule())
        except Exception as error:  # noqa: BLE001  # whatever is wrong with one rule, the others are needed
            broken.add(kind)
            findings.append(_rule_failed(kind, error))
    return findings, broken


def failed_run(failing: Iterable[FailingRun], ui_url: str) -> list[Finding]:
    """Find jobs whose newest run failed, but for publications, which have an alert of their own."""
    return [
        make_finding(
            "failed_run",
            one.scope,
            "warning",
            f"run of {one.scope} failed",
            f"Run {one.run_id} failed {utc(one.at)}.\n{cut(one.message)}",
            "read the run's log, mend the cause, run the job again.",
            run_link(ui_url, one.run_id),
        )
        for one in failing
        if not one.publishes
    ]


def blocked_publication(
    verdict: VerdictFact | None, failing: Iterable[FailingRun], ui_url: str, *, busy: bool, now: datetime
) -> list[Finding]:
    """Find that the newest verdict refuses the index, or that the newest run that was to publish it did not.

    Args:
        verdict: The newest one on what rag.yaml asks for.
        failing: What fails.
        ui_url: Address of the Dagster UI.
        busy: Whether runs go on that may complete the index.
        now: Time of the evaluation.
    """
    if verdict is not None and not verdict.passed:
        what = "the index that is served got worse" if verdict.is_served else f"{verdict.collection} is refused"
        seen = f"The verdict of {utc(verdict.judged_at)} refuses {verdict.collection}.\n" + "\n".join(
            f"- {reason}" for reason in verdict.reasons
        )
        severity: Severity = "critical" if verdict.is_served else "warning"
        todo = "see the page of the verdict (rag report); change what is wrong and run again, or rag rollback."
        return [
            make_finding(
                "blocked_publication", "index", severity, f"not published: {what}", cut(seen), todo,
                asset_link(ui_url, "index_verdict"),
            )
        ]  # fmt: skip
    return [
        make_finding(
            "blocked_publication",
            "index",
            "warning",
            "the index is not published",
            f"Run {one.run_id} did not publish it {utc(one.at)}; none did since {utc(one.since)}.\n{cut(one.message)}",
            "mend what the message names; the next publication goes on by itself. What was served before serves on.",
            run_link(ui_url, one.run_id),
        )
        for one in failing
        if one.publishes and not (one.is_waiting and (busy or (now - one.since).total_seconds() < WAITING_FOR_S))
    ][:1]


def stuck_partition(stuck: Iterable[StuckFact], ui_url: str) -> list[Finding]:
    """Find partitions whose changes do not get through."""
    return [
        make_finding(
            "stuck_partition",
            one.partition_key,
            "warning",
            f"partition {one.partition_key} is stuck",
            f"{one.objects:,} changed objects wait since {utc(one.since)}; {one.attempts:,} tries failed"
            + (f" in {one.stage}" if one.stage else "")
            + (f" ({one.failure})" if one.failure else "")
            + (f".\n{cut(one.message)}" if one.message else "."),
            "mend what the message names. "
            + (
                "It is tried again by itself."
                if one.failure == "transient"
                else "It is tried again when something in it changes, at the nightly reconciliation, or by rag run."
            ),
            run_link(ui_url, one.run_id) if one.run_id else asset_link(ui_url, "index_partitions"),
            group=f"stuck_partition/{source_of(one.partition_key)}",
        )
        for one in stuck
    ]


def reject_jump(newest: Iterable["Outcome"], ui_url: str) -> list[Finding]:
    """Find partitions whose share of rejected documents jumped, by the newest result of the test `reject_rate`."""
    return [
        make_finding(
            "reject_jump",
            one.partition_key,
            "warning",
            f"rejected documents jumped in {one.partition_key}",
            f"{one.description} Found {figure(one.value)}, expected {one.threshold}."
            + (" The partition is held back: its rows in the index stay as they were." if one.blocking else ""),
            "see why they are rejected (rag inspect documents --status rejected). If it is right: rag test "
            f"--partition {one.partition_key} --accept.",
            asset_link(ui_url, "documents"),
            group=f"reject_jump/{source_of(one.partition_key)}",
        )
        for one in newest
        if one.outcome != "pass" and one.value is not None
    ]


def index_dirt(newest: CheckFact | None, ui_url: str) -> list[Finding]:
    """Find that Milvus differed from its ledger when they were last compared."""
    if newest is None or newest.passed:
        return []
    return [
        make_finding(
            "index_dirt",
            "index_partitions",
            "critical",
            "Milvus does not hold what its ledger says",
            f"Compared {utc(newest.at)}. {newest.description}".strip(),
            "rag verify shows what differs, rag verify --repair mends it.",
            asset_link(ui_url, "index_partitions"),
        )
    ]


def _rule_failed(kind: str, error: Exception) -> Finding:
    return make_finding(
        "rule_failed",
        kind,
        "warning",
        f"it is not known whether there is a {kind.replace('_', ' ')}",
        f"Its rule failed: {cut(f'{type(error).__name__}: {error}')}\n"
        f"Alerts of this kind neither begin nor end meanwhile.",
        "mend what the message names; if it names nothing of yours, it is a fault of this program.",
        "",
        group="rule_failed/alerts",
    )
