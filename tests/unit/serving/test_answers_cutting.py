"""Sentences come out whole, with their markers, whatever the pieces of the stream."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.answers.cutting import SentenceCutter


def cut(*pieces: str) -> list[str]:
    cutter = SentenceCutter()
    found = [sentence for piece in pieces for sentence in cutter.feed(piece)]
    return [*found, rest] if (rest := cutter.finish()) else found


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One [1][2]. Two. [1] [3] Three [2, 4].", ["One [1][2].", "Two. [1] [3]", "Three [2, 4]."]),
        (
            "It costs 3.5 dollars, e.g. in May. See Dr. No [1].",
            ["It costs 3.5 dollars, e.g. in May.", "See Dr. No [1]."],
        ),
        (
            "Do this:\n1. Open it [1].\n2. Close it.\n[2]\nDone",
            ["Do this:", "1. Open it [1].", "2. Close it.\n[2]", "Done"],
        ),
        ('He said "stop." Then he left!', ['He said "stop."', "Then he left!"]),
        ("It is 8 a.m. now. see below. Yes", ["It is 8 a.m. now. see below.", "Yes"]),
        ("第一句。第二句。[1]第三句", ["第一句。", "第二句。[1]", "第三句"]),
        (
            "A list [see below] is not a marker. [note] Nor is this.",
            ["A list [see below] is not a marker.", "[note] Nor is this."],
        ),
        ("", []),
    ],
)
def test_sentences_and_their_markers(text: str, sentences: list[str]) -> None:
    assert [sentence.strip() for sentence in cut(text)] == sentences


def test_a_sentence_is_given_out_as_soon_as_the_next_begins() -> None:
    cutter = SentenceCutter()
    assert cutter.feed("One. ") == []
    assert cutter.feed("[") == []
    assert cutter.feed("1] ") == []
    assert cutter.feed("T") == ["One. [1]"]


_TEXT = st.text(alphabet='aB .!?\n[]1,;。")e.g', max_size=60)


@given(text=_TEXT, cuts=st.lists(st.integers(0, 60), max_size=8))
def test_pieces_make_no_difference_and_nothing_is_lost(text: str, cuts: list[int]) -> None:
    at = sorted({0, len(text), *(one for one in cuts if one < len(text))})
    pieces = [text[a:b] for a, b in itertools.pairwise(at)]
    assert "".join(cut(*pieces)) == text
    assert cut(*pieces) == cut(text) == cut(*text)
