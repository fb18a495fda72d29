"""What a search is worth, by its question and the load."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_core.index import lexical
from rag_core.index.bm25 import TermStatistics, term_id
from rag_core.retrieval.effort import Curve, effort_for

CURVE = Curve("ef", (16, 32, 64, 128), (32, 64, 128))
LONG = "how does the boundary layer behave behind a slender wing"


def statistics(**frequencies: int) -> TermStatistics:
    terms = {term_id(lexical.query_terms(word, ("en",))): count for word, count in frequencies.items()}
    return TermStatistics(10_000, terms)


@pytest.mark.parametrize(
    ("question", "reason", "weight"),
    [
        ("opening hours", "short", 1.5),
        ("what is error E1234 about in the boundary layer", "named", 1.5),
        ("where is rag_core described in the boundary layer", "named", 1.5),
        ('who wrote "the boundary layer" behind the slender wing', "named", 1.5),
        (LONG, None, 1.0),
    ],
)
def test_look_ups_trust_words(question: str, reason: str | None, weight: float) -> None:
    effort = effort_for(question, search_params={})
    assert effort.weights == (1.0, weight)
    assert effort.reasons == ((reason,) if reason else ())


@pytest.mark.parametrize("name", ["ISO-9001", "CVE-2024-31337", "E1234", "rag_core", "slender"])
def test_case_decides_nothing(name: str) -> None:
    """Results are cached by the case-folded question; how somebody else wrote it must not decide what comes back."""
    question = f"what does {name} ask of the people who audit factories"
    wanted = effort_for(question, search_params={}, statistics=statistics(slender=3))
    assert wanted.reasons
    for written in (question.lower(), question.upper(), question.title()):
        assert effort_for(written, search_params={}, statistics=statistics(slender=3)) == wanted


def test_a_hyphen_and_a_number_alone_name_nothing() -> None:
    assert effort_for("how do the 2 rows - and 3 columns - of the table differ", search_params={}).reasons == ()


def test_a_rare_word_counts_and_one_that_occurs_nowhere_does_not() -> None:
    rare = effort_for(LONG, search_params={}, statistics=statistics(slender=3, wing=5_000))
    assert (rare.bm25_weight, rare.reasons) == (1.25, ("rare",))
    assert effort_for(LONG, search_params={}, statistics=statistics(wing=5_000)).reasons == ()


def test_the_measured_curve() -> None:
    def chosen(question: str, ef: int, load: float = 0.0, curve: Curve | None = CURVE) -> int:
        return int(effort_for(question, search_params={"ef": ef}, curve=curve, load=load).search_params["ef"])

    assert chosen(LONG, 64) == 64
    assert chosen("opening hours", 64) == 128
    assert chosen("opening hours", 128) == 128, "nothing wider was measured"
    assert chosen(LONG, 64, load=1.0) == 32, "the cheapest that meets the floors"
    assert chosen("opening hours", 64, load=1.0) == 32
    assert chosen("opening hours", 64, curve=None) == 64
    assert chosen(LONG, 64, load=1.0, curve=Curve("ef", (16, 32), ())) == 64, "none meets them: it stays"
    assert effort_for("hours", search_params={}, curve=CURVE).search_params == {}


@given(st.text(max_size=60), st.sampled_from(CURVE.good), st.floats(0, 10))
def test_never_below_what_meets_the_floors(question: str, ef: int, load: float) -> None:
    effort = effort_for(question, search_params={"ef": ef, "other": 1}, curve=CURVE, load=load)
    assert effort.search_params["ef"] in CURVE.good
    assert effort.search_params["other"] == 1
    assert effort.dense_weight == 1.0 <= effort.bm25_weight <= 1.5


@given(st.text(max_size=60), st.sampled_from(CURVE.good), st.lists(st.floats(0, 3), min_size=2, max_size=5).map(sorted))
def test_more_load_never_costs_more(question: str, ef: int, loads: list[float]) -> None:
    efforts = [effort_for(question, search_params={"ef": ef}, curve=CURVE, load=load) for load in loads]
    values = [effort.search_params["ef"] for effort in efforts]
    assert values == sorted(values, reverse=True)
    assert len({effort.weights for effort in efforts}) == 1, "load changes time, not the order of results"


def test_what_is_given_is_left_as_it_was() -> None:
    params = {"ef": 64}
    effort_for("opening hours", search_params=params, curve=CURVE, load=1.0)
    assert params == {"ef": 64}
