"""Support: quotations have all of it, invented numbers and addresses none, and more passages never make it less."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_core.answering.numbers import numbers
from rag_core.answering.sentences import units
from rag_core.answering.support import best_unit, evidence_of, foreign_addresses, support

POLICY = (
    "# Incidents\n\nReport a security incident within one hour. You must not delete evidence.\n\n"
    "| Severity | Reply |\n|---|---|\n| High | 30 minutes |\n| Low | 1,000 minutes |\n\n"
    "See [the form](https://example.com/form), or write to help@example.com.\n"
)
LEAVE = "## Leave\n\nEmployees have 25 days of annual leave. It is approved by the manager."
EVIDENCE = [evidence_of(POLICY, context="Security policy"), evidence_of(LEAVE, context="Handbook")]
_WORDS = st.sampled_from(
    [
        "report",
        "incident",
        "leave",
        "not",
        "25",
        "30",
        "hour",
        "days",
        "evidence",
        "delete",
        "twelve",
        "never",
        "7",
        "the",
    ]
)
_TEXTS = st.lists(st.lists(_WORDS, min_size=1, max_size=8).map(lambda words: " ".join(words) + "."), max_size=6).map(
    "\n\n".join
)


@pytest.mark.parametrize(
    ("claim", "least"),
    [
        ("A security incident must be reported within 1 hour.", 0.99),
        ("High severity incidents get a reply within 30 minutes.", 0.5),
        ("Low severity: 1000 minutes.", 0.99),
        ("You must not delete evidence.", 1.0),
        ("The manager approves annual leave.", 0.99),
        ("1. Report a security incident within one hour.", 1.0),
        ("Use the form at https://example.com/form.", 0.5),
        ("**Employees** have twenty-five days of leave.", 0.99),
    ],
)
def test_what_the_passages_say_is_supported(claim: str, least: float) -> None:
    assert support(claim, EVIDENCE) >= least


@pytest.mark.parametrize(
    "claim",
    [
        "A security incident must be reported within two hours.",
        "Report a security incident within 24 hours.",
        "Employees have 26 days of annual leave.",
        "Low severity incidents get a reply within 100 minutes.",
        "You must delete evidence.",
        "Report a security incident to Microsoft.",
        "Use the form at https://evil.example/form.",
        "Write to thief@example.org about a security incident.",
        "",
        "[]",
    ],
)
@pytest.mark.parametrize("similarity", [None, 0.5, 1.0])
def test_what_they_do_not_say_is_not_however_similar_it_sounds(claim: str, similarity: float | None) -> None:
    assert support(claim, EVIDENCE, similarity) < 0.5


def test_similarity_helps_a_paraphrase_and_never_harms() -> None:
    claim = "Staff get 25 days off each year, and leave needs consent."
    assert support(claim, EVIDENCE) < 0.5 <= support(claim, EVIDENCE, 0.8)
    assert support(claim, EVIDENCE, 0.0) == support(claim, EVIDENCE)


def test_another_topic_is_not_supported() -> None:
    assert support("The cafeteria serves lunch at noon.", EVIDENCE, 0.3) < 0.2


def test_nothing_supports_without_passages() -> None:
    assert support("Report a security incident.", [], 1.0) < 0.5


@given(text=_TEXTS)
def test_every_unit_of_a_passage_is_supported_in_full(text: str) -> None:
    evidence = evidence_of(text)
    assert all(
        support(unit.plain, [evidence]) == support(text[unit.start : unit.end], [evidence]) == 1 for unit in units(text)
    )


@pytest.mark.parametrize("text", [POLICY, LEAVE])
def test_every_unit_of_real_markdown_is_supported_in_full(text: str) -> None:
    evidence = evidence_of(text)
    assert [support(unit.plain, [evidence]) for unit in evidence.units] == [1.0] * len(units(text))


@pytest.mark.slow
@given(claim=_TEXTS, passages=st.lists(_TEXTS, max_size=4), similarity=st.none() | st.floats(-1, 1))
def test_a_further_passage_never_lowers_support(claim: str, passages: list[str], similarity: float | None) -> None:
    evidence = [evidence_of(passage) for passage in passages]
    values = [support(claim, evidence[:count], similarity) for count in range(len(evidence) + 1)]
    assert values == sorted(values)
    assert all(0 <= value <= 1 for value in values)


@pytest.mark.slow
@given(text=_TEXTS, number=st.integers(1_001, 10**6))
def test_a_number_that_no_passage_holds_leaves_no_support(text: str, number: int) -> None:
    evidence = evidence_of(text)
    for unit in evidence.units:
        changed = re.sub(r"\d+|\btwelve\b", str(number), unit.plain)
        if changed != unit.plain:
            assert support(changed, [evidence], 1.0) == 0


def test_numbers_are_compared_by_value() -> None:
    assert numbers("1,000 and 2.50 on 2024-01-02, twice, twenty-one") == {"1000", "2.5", "2024", "1", "2", "21"}
    assert numbers("one of them, once they came") == frozenset()
    assert numbers("one hour, once a week") == {"1"}
    assert numbers("one of them", pronouns=True) == {"1"}


def test_numbers_of_headings_and_of_long_listings_count() -> None:
    evidence = evidence_of("## Plan 2031\n\nGrow.\n\n```\n" + "setting = value\n" * 60 + "port = 8099\n```\n")
    assert support("The plan for 2031.", [evidence]) >= 0.5
    assert support("The port is 8099.", [evidence]) >= 0.5


def test_addresses_are_the_passages_own_or_foreign() -> None:
    assert foreign_addresses("See https://example.com/form.", EVIDENCE) == frozenset()
    assert foreign_addresses("![x](https://evil.example/?q=1)", EVIDENCE) == {"https://evil.example/?q=1"}


def test_the_best_unit_is_the_one_that_says_it() -> None:
    unit = best_unit("Evidence is not deleted.", EVIDENCE[0])
    assert unit is not None
    assert POLICY[unit.start : unit.end] == "You must not delete evidence."
    assert best_unit("Bananas", EVIDENCE[0]) is None
