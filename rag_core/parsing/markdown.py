"""Small pieces of Markdown that every format needs: headings, fences, tables, the title inside a text."""

import re
from collections.abc import Iterable, Sequence
from typing import Final

_BACKTICKS: Final = re.compile(r"^\s*(`{3,})", re.MULTILINE)
_MISREAD: Final = re.compile(r"^(?=#{1,6}[ \t]|```|~~~)", re.MULTILINE)
_HEADING: Final = re.compile(r"^ {0,3}#{1,6}[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*$", re.MULTILINE)
_MARKS: Final = re.compile(r"\[([^\]]*)\]\([^)]*\)|[*`]{1,3}(?=\S)|(?<=\S)[*`]{1,3}|\b_|_\b")


def escape_lines(text: str) -> str:
    """Keep lines of plain text from being read as headings or fences: `# adduser fish` is a command."""
    return _MISREAD.sub(r"\\", text)


def heading(level: int, text: str) -> list[str]:
    """Write a heading as a list of one block; of none where there is no text."""
    line = " ".join(text.split())
    return [f"{'#' * min(max(level, 1), 6)} {line}"] if line else []


def fence(text: str, language: str = "") -> str:
    """Write a code block whose fence is longer than any inside it."""
    longest = max((len(match) for match in _BACKTICKS.findall(text)), default=2)
    marks = "`" * max(3, longest + 1)
    return f"{marks}{language}\n{text}\n{marks}"


def table_cell(value: str) -> str:
    """Write one cell on one line; a vertical bar is escaped."""
    return " ".join(value.split()).replace("|", "\\|")


def table_lines(rows: Iterable[Sequence[str]], width: int) -> Iterable[str]:
    """Write rows of a table as lines, the first one as its header; short rows are filled up."""
    for number, row in enumerate(rows):
        cells = [table_cell(value) for value in row[:width]]
        cells += [""] * (width - len(cells))
        yield f"| {' | '.join(cells)} |"
        if number == 0:
            yield "| " + " | ".join(["---"] * width) + " |"


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Write a whole table."""
    return "\n".join(table_lines(rows, max(map(len, rows), default=0)))


def first_heading(text: str, *, within: int = 4000) -> str | None:
    """Return the text of the first heading near the start, without inline marks."""
    match = _HEADING.search(text, 0, within)
    if match is None:
        return None
    return " ".join(_MARKS.sub(lambda mark: mark[1] or "", match[1]).split()) or None
