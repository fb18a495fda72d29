"""How words are compared."""

from rag_core.answering.terms import asks_number, has_number, idf, question_terms, terms


def test_endings_case_and_stop_words_do_not_count() -> None:
    assert terms("The Policies were REPORTED") == terms("policy reports")
    assert terms("incident's") == terms("incidents")
    assert terms("is it of the") == set()


def test_numbers_and_codes_stay_whole() -> None:
    assert terms("RO-20221108 costs 10.20") >= {"20221108", "10", "20"}
    assert terms("us used") == {"used"}


def test_text_without_spaces_is_compared_by_pairs() -> None:
    assert terms("東京都庁") == {"東京", "京都", "都庁"}


def test_how_long_asks_for_a_kind_of_answer() -> None:
    assert question_terms("How quickly must I report?") == terms("report")
    assert question_terms("Is the long report due?") == terms("long report due")


def test_a_rare_term_weighs_more_and_none_is_negative() -> None:
    weights = idf(["common", "rare", "absent"], [{"common"}, {"common", "rare"}, {"common"}])
    assert 0 < weights["common"] < weights["rare"] < weights["absent"]


def test_what_wants_a_number_and_what_has_one() -> None:
    assert all(map(asks_number, ["How long is it?", "when do we meet", "How many?"]))
    assert not any(map(asks_number, ["How do I do it?", "Who is it?"]))
    assert all(map(has_number, ["in 30 days", "within one hour", "Weekly meetings"]))
    assert not has_number("someone else")
