"""Blocks and outline of Markdown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_core.chunking.blocks import plain_title, scan
from rag_core.chunking.outline import Outline


def kinds(text: str) -> list[tuple[str, str]]:
    return [(block.kind, text[block.start : block.end]) for block in scan(text)]


def titles(text: str) -> list[tuple[int, str]]:
    return [(block.level, block.title) for block in scan(text) if block.kind == "heading"]


def test_blocks_of_a_page() -> None:
    text = (
        "# A\npara\ntwo\n\n| h |\n|---|\n| 1 |\nafter\n"
        "```sh\n# not\n```\n\n    code\n\n    more\n\n- item\n\n      same item\n"
    )
    assert kinds(text) == [
        ("heading", "# A\n"),
        ("paragraph", "para\ntwo\n"),
        ("table", "| h |\n|---|\n| 1 |\n"),
        ("paragraph", "after\n"),
        ("code", "```sh\n# not\n```\n"),
        ("code", "    code\n\n    more\n"),
        ("paragraph", "- item\n"),
        ("paragraph", "      same item\n"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# A #\n## *B* `c` ##\n### [D](#d)\n#### C#\n#no\n####### no", [(1, "A"), (2, "B c"), (3, "D"), (4, "C#")]),
        ("Title\n=====\ntext\n\nSub\n---\n", [(1, "Title"), (2, "Sub")]),
        ("Title\r\n=====\r\n\r\n## Sub ##\r\n", [(1, "Title"), (2, "Sub")]),
        ("two\nlines\n---\n", []),
        ("- item\n---\n", []),
        ("---\ntitle: x\n---\n# A", [(1, "A")]),
        ("```\n# no\n~~~\n# no\n```\n# yes", [(1, "yes")]),
        ("````\n```\n# no\n````\n# yes", [(1, "yes")]),
        ("```\n# never closed", []),
        ("1. item\n\n    ```\n    # no\n    ```\n\n# yes", [(1, "yes")]),
        ("    # code", []),
        ("a | b\n--- | ---\n1 | 2\n# A", [(1, "A")]),
    ],
)
def test_headings(text: str, expected: list[tuple[int, str]]) -> None:
    assert titles(text) == expected


def test_a_table_starts_at_its_header_row_and_knows_its_first_row() -> None:
    text = "intro\nstill\n| a | b |\n| - | :-: |\n| 1 | 2 |\n"
    paragraph, table = scan(text)
    assert (paragraph.kind, text[paragraph.start : paragraph.end]) == ("paragraph", "intro\nstill\n")
    assert text[table.start : table.body] == "| a | b |\n| - | :-: |\n"
    assert text[table.body : table.end] == "| 1 | 2 |\n"


def test_long_titles_are_bounded() -> None:
    assert len(plain_title("[" * 100_000)) <= 200


LINES = st.sampled_from(
    ["# A", "## B", "text", "=====", "---", "```", "~~~", "| a |", "|---|", "    code", "- item", "", "  ", "\r", "> q"]
)


@given(st.lists(LINES | st.text(max_size=5), max_size=25).map("\n".join))
def test_blocks_are_in_order_and_hold_every_line_that_is_not_blank(text: str) -> None:
    blocks = scan(text)
    position = 0
    for block in blocks:
        assert not text[position : block.start].strip()
        assert block.start <= block.body <= block.end
        assert block.start < block.end <= len(text)
        assert block.start == 0 or text[block.start - 1] == "\n"
        position = block.end
    assert not text[position:].strip()


def test_outline_paths() -> None:
    text = "intro\n# A\n## B\ntext\n## C\ntext\n# D\n### E\ntext\n"
    outline = Outline(scan(text), len(text))
    assert [section.path for section in outline.sections] == [
        (), ("A",), ("A", "B"), ("A", "C"), ("D",), ("D", "E"),
    ]  # fmt: skip
    assert outline.subtree_ends == [6, 4, 3, 4, 6, 6]
    assert outline.path(text.index("## B"), text.index("## C")) == ("A", "B")
    assert outline.path(text.index("# A"), text.index("## C")) == ("A", "B")  # A holds nothing but its heading
    assert outline.path(text.index("## B"), text.index("# D")) == ("A",)
    assert outline.path(0, len(text)) == ()
