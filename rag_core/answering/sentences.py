"""Split a chunk of Markdown into quotable units with exact offsets, and say how each reads as plain text.

A unit is a sentence, a list item's sentence, a table row or a short code block. Headings and sentences that are
questions are no units: they are the context in which the units after them are understood.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["sentence", "row", "code"]

MAX_CHARS: Final = 400  # a longer "sentence" is a run of lines (invoice, log) and is cut at line ends or spaces

_HEADING = re.compile(r" {0,3}#{1,6}\s+(.*?)\s*#*\s*$")
_FENCE = re.compile(r"\s*(```|~~~)")
_RULE = re.compile(r"\s*(?:[-*_=]\s*){3,}$")
_TABLE_RULE = re.compile(r"\s*\|?\s*:?-{2,}:?\s*(?:\|\s*:?-{2,}:?\s*)*\|?\s*$")
_MARKER = re.compile(r"\s*(?:>\s*)*(?:(?:[-*+•]|\d{1,3}[.)])\s+(?:\[[ xX]\]\s+)?)?")
_LIST_MARKER = re.compile(r"\s*(?:>\s*)*(?:[-*+•]|\d{1,3}[.)])\s+")
_BREAK = re.compile(r"(?<=[.!?…])[\"'”’)\]*_]*\s+(?=\S)|(?<=[。！？])")
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|Ex|ex|etc|vs|cf|al|Mr|Mrs|Ms|Dr|Prof|St|No|Nos|Fig|Eq|Sec|Ch|Vol|pp|Inc|Ltd|Co|approx|resp)"
    r"|\b[A-Z](?:\.[A-Z])*)\.$"
)
_CLEANING: Final = (
    (re.compile(r"<!--.*?-->", re.S), ""),
    (re.compile(r"!\[[^\]]*\]\([^)]*\)"), ""),
    (re.compile(r"\{[%{].*?[%}]\}", re.S), ""),  # template tags of Jekyll, Hugo, Jinja
    (re.compile(r"\[\^[^\]]+\]:?"), ""),
    (re.compile(r"\[([^\]]*)\](?:\((?:[^()]|\([^()]*\))*\)|\[[^\]]*\])"), r"\1"),
    (re.compile(r"<(https?://[^>\s]+|[^>\s@]+@[^>\s]+)>"), r"\1"),
    (re.compile(r"</?[a-zA-Z][^>]*>"), ""),
    (re.compile(r"(?<![\w*\\])(\*{1,3})(?=\S)(.+?)(?<=[^\s\\])\1(?![\w*])", re.S), r"\2"),
    (re.compile(r"(?<![\w\\])(_{1,3})(?=\S)(.+?)(?<=[^\s\\])\1(?!\w)", re.S), r"\2"),
    (re.compile(r"\*{2,}|_{2,}(?!\w)"), ""),  # marks whose other half is in another unit
    (re.compile(r"`+([^`]+)`+"), r"\1"),
    (re.compile(r"\\([\\`*_{}\[\]()#+\-.!|>~])"), r"\1"),
    (re.compile(r"(?m)^\s*>\s?"), ""),
    (re.compile(r"\s+"), " "),
)


@dataclass(frozen=True, slots=True)
class Unit:
    """Something that can be quoted.

    Attributes:
        start: First character in the text that was split, inclusive.
        end: Last character, exclusive.
        plain: How it reads without Markdown, on one line; a table row as `header: value; header: value`.
        context: Heading, question and list lead-in above it inside the same text, and the sentence before it.
        lead: The sentence ending in a colon, or the question, that opens the list it is an item of; often empty.
        kind: What it is.
    """

    start: int
    end: int
    plain: str
    context: str
    lead: str
    kind: Kind


@dataclass(slots=True)
class _Context:
    heading: str = ""
    lead: str = ""
    previous: str = ""

    def text(self) -> str:
        parts = dict.fromkeys(part for part in (self.heading, self.lead, self.previous) if part)
        return " ".join(parts)


@dataclass(frozen=True, slots=True)
class _Line:
    start: int
    text: str

    @property
    def end(self) -> int:
        return self.start + len(self.text)


def units(text: str) -> list[Unit]:
    """Split Markdown into units, in order; they never overlap.

    Returns:
        Units whose `text[start:end]` is the quotation exactly as it stands, Markdown and line breaks included.
    """
    found: list[Unit] = []
    context = _Context()
    for block in _blocks(text):
        first = block[0].text
        heading = _HEADING.match(first)
        if heading:
            context.heading, context.lead, context.previous = plain_text(heading[1]), "", ""
        elif _FENCE.match(first):
            found += _code(text, block, context)
        elif first.lstrip().startswith("|"):
            found += _rows(block, context)
        else:
            found += _sentences(text, block, context)
    return found


def ends_in_abbreviation(text: str) -> bool:
    """Whether the full stop at the end of a text is that of an abbreviation, such as "e.g."."""
    return _ABBREVIATION.search(text) is not None


def plain_text(markdown: str) -> str:
    """Return text without Markdown's inline marks, on one line."""
    for pattern, replacement in _CLEANING:
        markdown = pattern.sub(replacement, markdown)
    return markdown.strip()


def _blocks(text: str) -> Iterator[list[_Line]]:
    """Group lines: a heading, a fenced block, a table, a list item, or a paragraph each."""
    block: list[_Line] = []
    fence = ""
    for line in _lines(text):
        if fence:
            block.append(line)
            if line.text.strip().startswith(fence):
                yield block
                block, fence = [], ""
            continue
        opening = _FENCE.match(line.text)
        alone = _HEADING.match(line.text) or not line.text.strip() or _RULE.match(line.text)
        new = (
            opening or alone or _LIST_MARKER.match(line.text) or (_is_row(line) != (bool(block) and _is_row(block[0])))
        )
        if new and block:
            yield block
            block = []
        if opening:
            block, fence = [line], opening[1]
        elif _HEADING.match(line.text):
            yield [line]
        elif not alone:
            block.append(line)
    if block:
        yield block


def _lines(text: str) -> Iterator[_Line]:
    start = 0
    for line in text.split("\n"):
        yield _Line(start, line)
        start += len(line) + 1


def _is_row(line: _Line) -> bool:
    return line.text.lstrip().startswith("|")


def _code(text: str, block: list[_Line], context: _Context) -> Iterator[Unit]:
    body = block[1:-1] if len(block) > 1 and _FENCE.match(block[-1].text) else block[1:]
    if not body:
        return
    start, end = _trimmed(text, body[0].start, body[-1].end)
    if 0 < end - start <= MAX_CHARS:
        yield Unit(start, end, " ".join(text[start:end].split()), context.text(), context.lead, "code")


def _rows(block: list[_Line], context: _Context) -> Iterator[Unit]:
    header: list[str] = []
    if len(block) > 1 and _TABLE_RULE.match(block[1].text):
        header = [plain_text(cell) for cell in _cells(block[0].text)]
        block = block[2:]
    for line in block:
        cells = [plain_text(cell) for cell in _cells(line.text)]
        names = header if len(header) == len(cells) else [""] * len(cells)
        plain = "; ".join(f"{name}: {cell}" if name else cell for name, cell in zip(names, cells, strict=True) if cell)
        if plain and not _TABLE_RULE.match(line.text):
            indent = len(line.text) - len(line.text.lstrip())
            yield Unit(
                line.start + indent, line.start + len(line.text.rstrip()), plain, context.text(), context.lead, "row"
            )


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row.strip().removeprefix("|").removesuffix("|"))]


def _sentences(text: str, block: list[_Line], context: _Context) -> Iterator[Unit]:
    if not plain_text(text[block[0].start : block[-1].end]):
        return  # an image or a comment, which may hold sentence ends
    item = _LIST_MARKER.match(block[0].text) is not None
    if not item:
        context.lead = ""
    marker = _MARKER.match(block[0].text)
    start = block[0].start + (marker.end() if marker else 0)
    for first, last in _sentence_spans(text, start, block[-1].end):
        plain = plain_text(text[first:last])
        if not any(character.isalnum() for character in plain):
            continue
        if not plain.endswith(("?", "？")):
            yield Unit(first, last, plain, context.text(), context.lead, "sentence")
        if plain.endswith(("?", "？")) or (plain.endswith(":") and not item):
            context.lead = plain
        context.previous = "" if item else plain


def _sentence_spans(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the sentences of text[start:end] without the white space around them."""
    begin = start
    for match in _BREAK.finditer(text, start, end):
        following = text[match.end()] if match.end() < end else ""
        if following.islower() or _ABBREVIATION.search(text, begin, match.start()):
            continue
        yield from _bounded(text, begin, match.end())
        begin = match.end()
    yield from _bounded(text, begin, end)


def _bounded(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Cut a span above MAX_CHARS after the last line end, else space, that keeps a part below it."""
    start, end = _trimmed(text, start, end)
    while end - start > MAX_CHARS:
        cut = max(text.rfind("\n", start + 1, start + MAX_CHARS), 0) or text.rfind(" ", start + 1, start + MAX_CHARS)
        cut = cut if cut > start else start + MAX_CHARS
        yield _trimmed(text, start, cut)
        start, end = _trimmed(text, cut, end)
    if start < end:
        yield start, end


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    part = text[start:end]
    return start + len(part) - len(part.lstrip()), end - (len(part) - len(part.rstrip())) if part.strip() else start
