"""Rules: from facts to findings, each with what to do and a heading of the manual."""

import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from rag_core.alerts import rules, source_rules
from rag_core.alerts.facts import CheckFact, LookFact, PoisonFact, ProblemFact, StuckFact, VerdictFact
from rag_core.alerts.failing import EndedRun, FailingRun, fold
from rag_core.alerts.model import KINDS, Finding
from rag_core.config_freshness import Objective
from rag_core.freshness.slo import Standing
from rag_core.reports.outcomes import Outcome
from tests.alert_support import NOW
from tests.conftest import REPO

URL = "http://dagster.example:3000"


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


STANDING = Standing(
    source="wiki", now=NOW, objective=Objective(), counted=1_000, good=950, bad=50, pending=3, data_age_s=0.0,
    oldest_pending=None, attained=0.95, budget_spent=5.0, burn={"5m": 0.0, "30m": 0.0, "1h": 0.0, "6h": 0.0},
    p50_s=20.0, p95_s=28.0, max_s=900.0, state="ok", reasons=(),
)  # fmt: skip
PUBLICATION = FailingRun("publication", "r1", NOW, NOW, True, "published_index: Milvus is away")
BUILD = FailingRun("build_index/wiki", "r2", NOW, NOW, False, "documents: no space left")
OUTCOME = Outcome(
    evaluated_at=NOW, table="documents", lane="", partition_key="wiki__03", test="reject_rate", column="",
    severity="error", blocking=True, outcome="error", value=0.5, threshold="at most 0.2 more than before, was 0.01",
    rows=20, failing_rows=0, examples="[]", description="The share of rejected documents does not jump.",
)  # fmt: skip
VERDICT = VerdictFact("rag_1", NOW, False, ("ANN recall@10 is 0.91", "nDCG@10 is 0.3"), is_served=False)
STUCK = StuckFact("wiki__03", 4, NOW, 3, "transient", "index_partitions", "Milvus is away", "r3")

EACH = {
    "freshness_burn": source_rules.freshness_burn(
        [replace(STANDING, state="slow_burn", reasons=("the budget is spent too fast",))], URL
    ),
    "freshness_hard_limit": source_rules.freshness_hard_limit(
        [replace(STANDING, state="hard_limit", data_age_s=7_200.0, oldest_pending=("a.md", ago(7_200)))], URL
    ),
    "failed_run": rules.failed_run([BUILD, PUBLICATION], URL),
    "blocked_publication": rules.blocked_publication(None, [BUILD, PUBLICATION], URL, busy=True, now=NOW),
    "stuck_partition": rules.stuck_partition([STUCK], URL),
    "reject_jump": rules.reject_jump([OUTCOME], URL),
    "index_dirt": rules.index_dirt(CheckFact(False, NOW, "r4", "1 of 8 partitions differ"), URL),
    "listing_problem": source_rules.listing_problem(
        [ProblemFact("wiki", "listing_failed", "gone", ago(61))], URL, now=NOW
    ),
    "poison_event": source_rules.poison_event([PoisonFact("wiki", 2, "/x/poison", ("a.json",))], URL),
    "missed_look": source_rules.missed_look(
        [LookFact("wiki", ago(111))], URL, tick_s=5, list_budget_s=20, watched_since=ago(3_600), now=NOW
    ),
    "rule_failed": rules.evaluate({"failed_run": lambda: next(iter([]))})[0],
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_finding_says_what_to_do_and_where_to_read_more(kind: str) -> None:
    (one,) = EACH[kind]
    assert one.kind == kind
    assert one.key.startswith(f"{kind}/")
    assert "\n" not in one.title
    assert "\n\nWhat to do: " in one.body
    assert one.body.endswith(f"docs/operations.md#{kind}")
    assert one.link == "" or one.link.startswith(f"{URL}/")


def test_the_manual_has_an_entry_for_every_kind() -> None:
    manual = (REPO / "docs" / "operations.md").read_text(encoding="utf-8")
    section = re.search(r"^## Alerts$(.*?)(?=^## )", manual, re.DOTALL | re.MULTILINE)
    assert section is not None
    entries = re.split(r"^### ", section.group(1), flags=re.MULTILINE)[1:]
    assert [entry.partition("\n")[0] for entry in entries] == list(KINDS)
    for entry in entries:
        for part in ("**Means**", "**Look at**", "**Do**", "**Ends**"):
            assert part in " ".join(entry.split()), (entry.partition("\n")[0], part)


def severities(found: Iterable[Finding]) -> list[str]:
    return [one.severity for one in found]


def test_burn_beside_a_hard_limit_is_found_and_alone_it_is_not() -> None:
    limit = replace(STANDING, state="hard_limit", data_age_s=9_999.0, reasons=("the oldest change is old",))
    assert source_rules.freshness_burn([STANDING, limit], URL) == []
    both = replace(limit, reasons=(*limit.reasons, "50 of 1,000 changes were not searchable within 300 s"))
    (beside,) = source_rules.freshness_burn([both], URL)
    assert "50 of 1,000 changes were" in beside.body
    assert "the oldest change" not in beside.body.lower()
    fast = replace(STANDING, state="fast_burn", reasons=("x",))
    assert (
        severities(source_rules.freshness_burn([both, fast, replace(fast, state="exhausted")], URL)) == ["critical"] * 3
    )


def test_the_hard_limit_goes_by_age_whatever_else_is() -> None:
    at_limit = replace(STANDING, data_age_s=3_600.0)
    assert source_rules.freshness_hard_limit([at_limit], URL) == []
    (found,) = source_rules.freshness_hard_limit([replace(at_limit, data_age_s=3_600.5)], URL)
    assert "limit is 60 minutes" in found.body


def test_failed_runs_and_publications_are_told_apart() -> None:
    (run,) = EACH["failed_run"]
    assert (run.key, run.link) == ("failed_run/build_index/wiki", f"{URL}/runs/r2")
    assert "no space left" in run.body
    (publication,) = EACH["blocked_publication"]
    assert publication.link == f"{URL}/runs/r1"
    assert "Milvus is away" in publication.body


@pytest.mark.parametrize("why", ["rag_1 is incomplete; ...", "rag_1 must be judged first, because ..."])
def test_an_index_that_waits_is_told_of_once_that_lasts_and_nothing_is_done(why: str) -> None:
    failing = replace(PUBLICATION, message=f"not published: {why}", since=ago(899))

    def found(since: datetime, *, busy: bool) -> int:
        return len(rules.blocked_publication(None, [replace(failing, since=since)], URL, busy=busy, now=NOW))

    assert [found(ago(899), busy=False), found(ago(900), busy=False), found(ago(900), busy=True)] == [0, 1, 0]


def test_a_refusal_is_told_with_its_reasons_before_a_failed_run() -> None:
    def found(verdict: VerdictFact) -> list[Finding]:
        return rules.blocked_publication(verdict, [PUBLICATION], URL, busy=False, now=NOW)

    (one,) = found(VERDICT)
    assert "- ANN recall@10 is 0.91\n- nDCG@10 is 0.3" in one.body
    assert one.severity == "warning"
    assert severities(found(replace(VERDICT, is_served=True))) == ["critical"]
    assert [one.title for one in found(replace(VERDICT, passed=True))] == ["the index is not published"]


def test_a_stuck_partition_says_whether_it_is_tried_again() -> None:
    (transient,) = EACH["stuck_partition"]
    assert (transient.group, transient.link) == ("stuck_partition/wiki", f"{URL}/runs/r3")
    assert "3 tries failed in index_partitions (transient)" in transient.body
    assert "tried again by itself" in transient.body
    (permanent,) = rules.stuck_partition([replace(STUCK, failure="permanent", run_id="")], URL)
    assert "when something in it changes" in permanent.body
    assert permanent.link == f"{URL}/assets/index_partitions"


def test_a_reject_rate_that_passes_or_was_not_measured_is_none() -> None:
    others = [replace(OUTCOME, outcome="pass"), replace(OUTCOME, value=None)]
    assert rules.reject_jump(others, URL) == []
    assert "Found 0.5, expected at most 0.2 more than before, was 0.01." in EACH["reject_jump"][0].body


def test_a_clean_or_unknown_index_is_none() -> None:
    assert rules.index_dirt(None, URL) == []
    assert rules.index_dirt(CheckFact(True, NOW, "r", ""), URL) == []


def test_a_listing_that_failed_just_now_waits_and_a_shrink_does_not() -> None:
    def found(kind: str, seconds: float) -> list[str]:
        return severities(source_rules.listing_problem([ProblemFact("w", kind, "m", ago(seconds))], URL, now=NOW))

    assert found("listing_failed", 59) == []
    assert found("listing_failed", 60) == ["warning"]
    assert found("implausible_shrink", 0) == ["critical"]


def test_a_platform_that_was_off_missed_no_look() -> None:
    def found(started: float, watched: float) -> int:
        looks = [LookFact("wiki", ago(started))]
        return len(
            source_rules.missed_look(looks, URL, tick_s=5, list_budget_s=20, watched_since=ago(watched), now=NOW)
        )

    assert [found(110, 9_999), found(111, 9_999), found(30_000, 110), found(30_000, 111)] == [0, 1, 0, 1]


def test_a_rule_that_raises_is_a_finding_and_the_others_are_evaluated() -> None:
    def broken() -> list[Finding]:
        raise ConnectionError("store is away")

    found, unknown = rules.evaluate({"index_dirt": broken, "failed_run": lambda: EACH["failed_run"]})
    assert unknown == {"index_dirt"}
    assert [one.key for one in found] == ["rule_failed/index_dirt", "failed_run/build_index/wiki"]
    assert "ConnectionError: store is away" in found[0].body


def ended(scope: str, seconds: float, *, failed: bool = True, **values: object) -> EndedRun:
    return EndedRun(scope, f"{scope}@{seconds}", NOW + timedelta(seconds=seconds), failed, **values)  # type: ignore[arg-type]


def test_a_later_success_of_the_same_scope_ends_a_failure() -> None:
    runs = [ended("a", 0), ended("b", 1), ended("a", 2), ended("b", 3, failed=False), ended("c", 4, failed=False)]
    failing = fold({}, runs, NOW)
    assert {scope: (one.run_id, one.since) for scope, one in failing.items()} == {"a": ("a@2", NOW)}
    assert fold(failing, runs, NOW) == failing, "reading the same runs again has no effect"
    assert fold(failing, [ended("a", 1, failed=False)], NOW) == failing, "an earlier success does not count"
    assert fold(failing, [ended("a", 2.5, failed=False)], NOW) == {}


def test_publications_are_one_scope_and_are_not_forgotten() -> None:
    failing = fold({}, [ended("publish_index", 0, publishes=True), ended("a", 0)], NOW)
    assert set(failing) == {"publication", "a"}
    later = NOW + timedelta(hours=24)
    assert set(fold(failing, [], later)) == {"publication"}
    assert fold(failing, [ended("documents,published_index", 9, publishes=True, failed=False)], later) == {}
