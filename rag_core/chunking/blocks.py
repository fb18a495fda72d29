"""Markdown's block structure by one pass over the lines: headings, tables, code and paragraphs, with character spans.

Only what chunking needs of CommonMark and GFM tables: lists, quotes and HTML are paragraphs. Anything is valid input.
"""

import re
from typing import Final, Literal, NamedTuple

Kind = Literal["heading", "paragraph", "table", "code"]

_ATX: Final = re.compile(r"(#{1,6})(?=[ \t]|$)")
_FENCE: Final = re.compile(r"(`{3,})[^`]*|(~{3,}).*", re.DOTALL)
_SETEXT: Final = re.compile(r"=+|-+")
_DELIMITER_ROW: Final = re.compile(r"\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?")
_LIST_ITEM: Final = re.compile(r"(?:[-*+]|\d{1,9}[.)])(?:[ \t]|$)")
_FRONT_MATTER: Final = re.compile(
    r"\ufeff?---[ \t]*\r?\n(?=[\w-]+:)(?s:.*?)^(?:---|\.\.\.)[ \t]*\r?(?:\n|\Z)", re.MULTILINE
)
_FRONT_MATTER_CHARS: Final = 10_000
_LINK: Final = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")

_MARKS: Final = frozenset("#`~=-|:")
_LIST_MARKS: Final = frozenset("-*+0123456789")
_SETEXT_CHARS: Final = 200
_TITLE_CHARS: Final = 200


class Block(NamedTuple):
    """One block.

    Attributes:
        kind: What it is; `code` is fenced or indented.
        start: First character of its first line.
        end: After the line end of its last line; blank lines between blocks belong to none.
        level: 1 to 6 for a heading, else 0.
        title: A heading's text without its markup, else empty.
        body: Where a table's first body row starts, else start.
    """

    kind: Kind
    start: int
    end: int
    level: int
    title: str
    body: int


def scan(text: str) -> list[Block]:
    """Return the blocks of a Markdown text in order; they do not overlap and hold every line that is not blank."""
    scanner = _Scanner()
    position = 0
    front_matter = _FRONT_MATTER.match(text, 0, _FRONT_MATTER_CHARS)
    if front_matter:
        position = front_matter.end()
        scanner.add("paragraph", 0, position)
    feed = scanner.feed
    for line in text[position:].split("\n"):
        following = position + len(line) + 1
        feed(line, position, following)
        position = following
    scanner.close()
    blocks = scanner.blocks
    if blocks and blocks[-1].end > len(text):  # the last line has no line end
        blocks[-1] = blocks[-1]._replace(end=len(text), body=min(blocks[-1].body, len(text)))
    return blocks


def plain_title(markdown: str) -> str:
    """Return a heading's text without links, emphasis and code marks, on one line, of bounded length."""
    text = _LINK.sub(r"\1", markdown[: 4 * _TITLE_CHARS])
    return " ".join(text.replace("*", "").replace("`", "").split())[:_TITLE_CHARS].strip()


def _atx_title(rest: str) -> str:
    """Strip the closing marks of `# Title ##`; `C#` keeps its own."""
    body = rest.rstrip("#")
    return plain_title(body if body != rest and (not body or body[-1] in " \t") else rest)


class _Scanner:
    """The open block, and the blocks closed so far. Lines come without "\\n", perhaps with "\\r" at the end."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self._open: Kind | None = None
        self._start = self._end = self._body = 0
        self._last_line = ""  # of the open paragraph, and where it starts
        self._last_start = 0
        self._fence = ""
        self._in_list = False

    def add(
        self, kind: Kind, start: int, end: int, *, level: int = 0, title: str = "", body: int | None = None
    ) -> None:
        self.blocks.append(Block(kind, start, end, level, title, start if body is None else body))

    def close(self) -> None:
        if self._open is not None:
            self.add(self._open, self._start, self._end, body=self._body)
            self._open = None

    def feed(self, line: str, start: int, following: int) -> None:
        stripped = line.strip()
        if self._fence:
            self._end = following
            if stripped.startswith(self._fence) and not stripped.strip(self._fence[0]):
                self._fence = ""
                self.close()
            return
        if not stripped:
            self._blank()
            return
        first = stripped[0]
        indented = line[0] in " \t" and line.startswith(("    ", "\t"))
        if self._open == "code" and not indented:
            self.close()
        if (first in "`~" and (self._in_list or not indented) and self._opens_fence(stripped, start, following)) or (
            indented and self._indented(start, following)
        ):
            return
        if self._open == "table":
            if "|" in line:
                self._end = following
                return
            self.close()
        if first in _MARKS and not indented and self._special(stripped, start, following):
            return
        self._paragraph(stripped, start, following, indented=indented)

    def _begin(self, kind: Kind, start: int, following: int) -> None:
        self._open, self._start, self._end, self._body = kind, start, following, start

    def _blank(self) -> None:
        if self._open != "code":
            self.close()

    def _opens_fence(self, stripped: str, start: int, following: int) -> bool:
        match = _FENCE.fullmatch(stripped)
        if match is None:
            return False
        self.close()
        self._begin("code", start, following)
        self._fence = match[1] or match[2]
        return True

    def _indented(self, start: int, following: int) -> bool:
        """Take an indented line as code, unless it continues a paragraph, a table or a list."""
        if self._open == "code":
            self._end = following
            return True
        if self._open is not None or self._in_list:
            return False
        self._begin("code", start, following)
        return True

    def _special(self, stripped: str, start: int, following: int) -> bool:
        if stripped[0] == "#":
            match = _ATX.match(stripped)
            if match is None:
                return False
            self.close()
            self._in_list = False
            self.add("heading", start, following, level=len(match[1]), title=_atx_title(stripped[match.end() :]))
            return True
        if self._open != "paragraph":
            return False
        if "|" in stripped:
            return "|" in self._last_line and self._begins_table(stripped, following)
        return self._underlines(stripped, following)

    def _begins_table(self, stripped: str, following: int) -> bool:
        if not _DELIMITER_ROW.fullmatch(stripped):
            return False
        header = self._last_start
        if header > self._start:
            self._end = header
            self.close()
        self._begin("table", header, following)
        self._body = following
        return True

    def _underlines(self, stripped: str, following: int) -> bool:
        """Turn the open paragraph into a setext heading if this line underlines it."""
        # CommonMark takes a paragraph of any length; in real text, dashes below several lines are a rule.
        if (
            self._last_start > self._start
            or self._in_list
            or self._end - self._start > _SETEXT_CHARS
            or self._last_line[0] in ">|"
            or not _SETEXT.fullmatch(stripped)
        ):
            return False
        self._open = None
        level = 1 if stripped[0] == "=" else 2
        self.add("heading", self._start, following, level=level, title=plain_title(self._last_line))
        return True

    def _paragraph(self, stripped: str, start: int, following: int, *, indented: bool) -> None:
        if self._open != "paragraph":
            self._begin("paragraph", start, following)
            if not indented:
                self._in_list = False
        if stripped[0] in _LIST_MARKS and _LIST_ITEM.match(stripped):
            self._in_list = True
        self._end = following
        self._last_start = start
        self._last_line = stripped
