"""What is a quotable unit, that its offsets are exact, and how it reads without Markdown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_core.answering.sentences import MAX_CHARS, plain_text, units


def _plain(text: str) -> list[str]:
    found = units(text)
    assert all(0 <= unit.start < unit.end <= len(text) for unit in found)
    return [unit.plain for unit in found]


def test_sentences_of_a_wrapped_paragraph() -> None:
    text = "See the\npage first. It was 8:00 a.m. and (e.g. Dr. Who of the U.S. Navy) came. Then left!"
    assert _plain(text) == [
        "See the page first.",
        "It was 8:00 a.m. and (e.g. Dr. Who of the U.S. Navy) came.",
        "Then left!",
    ]
    first = units(text)[0]
    assert text[first.start : first.end] == "See the\npage first."


def test_headings_and_questions_are_context_and_not_units() -> None:
    found = units("# Pay\n\n## When do I get paid?\n\nEvery two weeks.\n\nAnd holidays? They are paid.")
    assert [unit.plain for unit in found] == ["Every two weeks.", "They are paid."]
    assert found[0].context == "When do I get paid?"
    assert "And holidays?" in found[1].context


def test_list_items_lose_their_marker_and_know_their_lead_in() -> None:
    text = "Follow these steps:\n\n1. Do not click. Keep it.\n2. Report\n   it.\n\nDone."
    found = units(text)
    assert [unit.plain for unit in found] == ["Follow these steps:", "Do not click.", "Keep it.", "Report it.", "Done."]
    assert [unit.lead for unit in found] == ["", *["Follow these steps:"] * 3, ""]
    assert text[found[3].start : found[3].end] == "Report\n   it."


def test_a_table_row_reads_as_header_and_value_pairs() -> None:
    text = "Hours:\n\n| **Day** | Hours |\n| ------ | -----|\n| Monday | 10 |\n|  Friday | |\n"
    found = units(text)
    assert [unit.plain for unit in found[1:]] == ["Day: Monday; Hours: 10", "Day: Friday"]
    assert text[found[1].start : found[1].end] == "| Monday | 10 |"
    assert found[1].kind == "row"


def test_a_row_without_its_header_reads_as_its_cells() -> None:
    assert _plain("| Monday | 10 |\n| Friday | 8 |") == ["Monday; 10", "Friday; 8"]


def test_a_short_code_block_is_one_unit_and_a_long_one_none() -> None:
    assert [(unit.plain, unit.kind) for unit in units("```sh\npg_dump db \\\n  > file. Now\n```")] == [
        ("pg_dump db \\ > file. Now", "code")
    ]
    assert units("```\n" + "x = 1\n" * 100 + "```") == []
    assert _plain("~~~\nnever closed") == ["never closed"]


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ('[get set up]({% page "/x/" %}) in **Concur**', "get set up in Concur"),
        ("_one_ `two` ***three*** <https://a.b> <b>four</b>", "one two three https://a.b four"),
        ("snake_case_name and 2*3*4", "snake_case_name and 2*3*4"),
        ("![logo](data:image/png;base64,AAA=) text[^1] \\*star\\*", "text *star*"),
        ("> quoted\n> text <!-- no\n -->", "quoted text"),
        ("half **open", "half open"),
        ("[a link (x)](http://e/x_(y)) and [ref][1]", "a link (x) and ref"),
    ],
)
def test_plain_text(markdown: str, expected: str) -> None:
    assert plain_text(markdown) == expected


def test_an_image_and_a_rule_are_no_units() -> None:
    assert _plain("![SVG x](data:image/svg+xml;base64,a. B)\n\n---\n\n***") == []


def test_text_without_spaces_between_sentences() -> None:
    assert _plain("これは文です。次の文。") == ["これは文です。", "次の文。"]


def test_lines_that_never_end_a_sentence_are_cut_at_line_ends() -> None:
    text = "\n".join(f"Item {number} costs {number} dollars" for number in range(60))
    found = units(text)
    assert all(unit.end - unit.start <= MAX_CHARS for unit in found)
    assert all(text[unit.start : unit.end].startswith("Item") for unit in found)
    assert " ".join(unit.plain for unit in found) == text.replace("\n", " ")


_markdown = st.lists(
    st.one_of(
        st.sampled_from(["# H\n", "\n\n", "- ", "1. ", "| a | b |\n", "|--|--|\n", "```\n", "> ", "e.g. ", "? ", "。"]),
        st.text(max_size=30),
        st.sampled_from(["A sentence. ", "**Bold** text: ", "x" * 900]),
    ),
    max_size=25,
).map("".join)


@given(_markdown)
def test_units_are_in_order_do_not_overlap_and_hold_text(text: str) -> None:
    end = 0
    for unit in units(text):
        assert end <= unit.start < unit.end <= len(text)
        assert text[unit.start : unit.end] == text[unit.start : unit.end].strip()
        assert unit.plain
        assert "\n" not in unit.plain
        end = unit.end
