import unicodedata
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_core.index.lexical import index_terms, query_terms

LANGUAGES = st.sampled_from([None, "en", "de", "fr", "hi", "ja", "ar", "xx"])
LATIN_AND_GREEK = "abyzéßİǅ'’-_ 019ΑΣς\u0301\u0308\u00ad\ud800"
WORDY = st.text(st.sampled_from(LATIN_AND_GREEK + "東京タワーがﾊﾞ한국어ภาษาไहिन्दीשָׁלוֹם،"), max_size=40)


def words(text: str) -> list[str]:
    """Part a text where there is neither a letter or digit nor something that belongs to one."""
    return "".join(
        c if c.isalnum() or c == "\u00ad" or unicodedata.category(c)[0] == "M" else " " for c in text
    ).split()


def finds(question: str, text: str, language: str | None = "en") -> bool:
    return bool(set(query_terms(question).split()) & set(index_terms(text, language).split()))


@given(st.text() | WORDY, LANGUAGES)
def test_terms_are_letters_and_digits_in_lower_case(text: str, language: str | None) -> None:
    terms = index_terms(text, language)
    assert terms == terms.lower()
    assert all(term.isalnum() for term in terms.split(" ") if terms)


@given(st.text() | WORDY, LANGUAGES)
def test_every_word_of_a_text_finds_it(text: str, language: str | None) -> None:
    terms = set(index_terms(text, language).split())
    for word in words(text):
        assert not query_terms(word) or set(query_terms(word).split()) & terms, word
    assert bool(query_terms(text)) == bool(terms)


@given(st.text() | WORDY)
def test_a_question_has_each_term_once(question: str) -> None:
    terms = query_terms(question).split()
    assert len(terms) == len(set(terms))


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("heated plates", "heat transfer"),
        ("flow", "Flows of air"),
        ("RESIGNING", "how to resign"),
        ("cafe", "the café's menu"),
        ("Café", "CAFE\u0301"),
        ("tokens", "the key max_token of the file"),
        ("file２", "ＦＩＬＥ2"),
        ("information", "infor\u00admation"),
        ("strasse 7", "Haus 7"),
    ],
)
def test_inflection_case_accents_and_form_do_not_matter(question: str, text: str) -> None:
    assert finds(question, text)
    assert not finds("other", text)


@pytest.mark.parametrize(
    ("language", "question", "text", "inflected"),
    [
        ("de", "Häuser", "Die Häuser am See", "Hauses"),
        ("fr", "étudiants", "les étudiants", "étudiante"),
        ("ru", "книги", "новые книги", "книгами"),
        ("ar", "الكتاب", "قرأت الكتاب", "كتاب"),
    ],
)
def test_other_languages_are_found_by_their_words_and_when_named_by_stems(
    language: str, question: str, text: str, inflected: str
) -> None:
    terms = set(index_terms(text, language).split())
    assert set(query_terms(question).split()) & terms
    assert set(query_terms(inflected, ("en", language)).split()) & terms


def test_language_without_stemmer_keeps_its_words() -> None:
    assert index_terms("Зимові шини", "uk") == "зимові шини"
    assert index_terms("running", None) == index_terms("running", "en") == "run"
    assert index_terms("running", "de") == "running"
    assert query_terms("running") == "running run"


def test_text_without_spaces_is_found_by_characters_and_pairs() -> None:
    assert index_terms("東京に行くDagster2", "ja") == "東 京 に 行 く 東京 京に に行 行く dagster2"
    assert query_terms("東京へ") == "東京 京へ"
    assert query_terms("京") == "京"
    assert finds("サーバー", "ｻｰﾊﾞｰの設定", "ja")
    assert finds("문서", "문서를 찾다", "ko")
    assert finds("ภาษา", "เอกสารภาษาไทย", "th")


def test_stop_words_leave_the_question_only() -> None:
    assert query_terms("What is the boundary of it?") == "boundary boundari it"
    assert query_terms("to be or not to be") == "not"
    assert query_terms("Who is who?") == "who is"
    assert index_terms("The who", "en") == "the who"


def test_long_words_are_cut_alike() -> None:
    assert finds("x" * 100_000, f"é {'x' * 5_000}")
    assert len(index_terms("x" * 100_000, "en")) == 64


def test_threads_do_not_disturb_one_another() -> None:
    many = [f"{stem}{ending}" for stem in map(str, range(300)) for ending in ("abilities", "izing", "edness")]
    with ThreadPoolExecutor(8) as pool:
        parallel = list(pool.map(query_terms, many * 4))
    assert parallel == [query_terms(word) for word in many] * 4
