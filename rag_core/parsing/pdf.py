"""PDF to Markdown, page by page.

Text and page come from kreuzberg's raw page texts: its own Markdown has no page marks and repairs ligatures that are
none ("#debian" becomes "fidebian"). Its structure only labels the raw lines: heading, list item, paragraph, table row.
"""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from rag_core.parsing.engine import extract, grid_rows
from rag_core.parsing.markdown import escape_lines, heading, table_cell
from rag_core.parsing.model import Extract, clean_text

_IGNORED: Final = re.compile("[\\s\x00-\x1f\u00ad\u2010-]+")
_QUOTES: Final = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'})
_LEADERS: Final = re.compile(r"(?:\s*\.){4,}\s*")
_BULLET: Final = re.compile(r"^(?:[•◦▪‣●○■□∙·]\s*|[*–-]\s+(?=\w))")
_NUMBER: Final = re.compile(r"^(?:\(?\d{1,3}[.)]|[a-z][.)])\s+\S")
_OUTER_NUMBER: Final = re.compile(r"^\W*(?:page\s+)?(\d{1,4})(?!\.?\d)\b|(?<![\d.])(\d{1,4})\W*$", re.I)
_ROMAN_PAGE: Final = re.compile(r"^\W*[ivxlc]{1,7}\W*$")
_SENTENCE_END: Final = re.compile(r"[.:!?。！？…][\"')\]”’]?$")
_HYPHENATED: Final = re.compile(r"(\w+)-$")
_NO_SPACE: Final = re.compile("[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef]")
_DIGITS: Final = re.compile(r"\d+")
_EDGE_LINES: Final = 3
_MIN_REPEATS: Final = 3
_FULL_LINE: Final = 0.7  # of the page's usual full line: a shorter one may end a paragraph
_WRAPPED_LINE: Final = 0.55  # a line shorter than this was ended on purpose (forms, receipts, verse)
_MIN_FILLED: Final = 0.6  # share of filled cells below which columns were seen where there are none


@dataclass(frozen=True, slots=True)
class _Label:
    """What the structure says of a line: the kind and number of its node, and a heading's level or a row's cells."""

    kind: str
    node: int
    level: int = 0
    cells: tuple[str, ...] = ()


def _skeleton(line: str) -> str:
    return _IGNORED.sub("", line).translate(_QUOTES)


def _labels(nodes: list[Any]) -> dict[int, dict[str, _Label]]:
    """Map page number, then skeleton of a line, to what the line belongs to."""
    labels: dict[int, dict[str, _Label]] = {}
    for number, node in enumerate(nodes):
        content = node["content"]
        kind, page = content["node_type"], labels.setdefault(node.get("page") or 0, {})
        if kind == "table":
            rows = grid_rows(content["grid"])
            is_table = _is_table(rows)
            for row in rows:
                label = _Label("table", number, cells=tuple(row)) if is_table else _Label("contents", number)
                page.setdefault(_skeleton("".join(row)), label)
        elif kind not in {"group", "list", "page_break", "image"}:
            level = (content.get("level") or 1) if kind in {"heading", "title"} else 0
            for line in (content.get("text") or "").split("\n"):
                page.setdefault(_skeleton(line), _Label("heading" if level else kind, number, level))
    return labels


def _is_table(rows: list[list[str]]) -> bool:
    cells = [value.strip() for row in rows for value in row]
    filled = sum(map(bool, cells))
    return len(rows) > 1 and filled >= _MIN_FILLED * len(cells) and not any(". ." in value for value in cells)


def _page_number_offset(pages: list[list[str]]) -> int | None:
    """Find what is printed as page number, less the page's position; None where too few pages agree."""
    offsets: Counter[int] = Counter()
    for number, lines in enumerate(pages, 1):
        printed = {int(found[1] or found[2]) for line in _edge(lines) for found in _OUTER_NUMBER.finditer(line)}
        offsets.update(value - number for value in printed)
    offset, count = offsets.most_common(1)[0] if offsets else (0, 0)
    return offset if count >= max(_MIN_REPEATS, len(pages) // 3) else None


def _edge(lines: list[str]) -> list[str]:
    return [*lines[:1], *lines[1:][-1:]]


def _furniture(pages: list[list[str]], labels: dict[int, dict[str, _Label]]) -> set[str]:
    """Find running headers and footers: lines at the edge of at least three pages that the structure left out."""
    seen: Counter[str] = Counter()
    for number, lines in enumerate(pages, 1):
        known = labels.get(number, {})
        edge = {*lines[:_EDGE_LINES], *lines[-_EDGE_LINES:]}
        seen.update({_DIGITS.sub("0", _skeleton(line)) for line in edge if _skeleton(line) not in known})
    return {line for line, count in seen.items() if count >= _MIN_REPEATS}


def _without_furniture(lines: list[str], furniture: set[str], page_number: int | None) -> list[str]:
    kept = []
    for position, line in enumerate(lines):
        at_edge = position < _EDGE_LINES or position >= len(lines) - _EDGE_LINES
        if at_edge and _DIGITS.sub("0", _skeleton(line)) in furniture:
            continue
        if page_number is not None and position in {0, len(lines) - 1}:
            printed = (int(found[1] or found[2]) for found in _OUTER_NUMBER.finditer(line))
            if page_number in printed or _ROMAN_PAGE.match(line):
                continue
        kept.append(line)
    return kept


def _joined(text: str, line: str, words: frozenset[str], separator: str) -> str:
    """Continue a paragraph with its next line; a word cut by a hyphen is mended where the document knows it whole."""
    cut = _HYPHENATED.search(text)
    if cut is not None and line[:1].islower():
        rest = re.match(r"\w+", line)
        whole = (cut[1] + (rest[0] if rest else "")).lower()
        return (text[:-1] if whole in words else text) + line
    if _NO_SPACE.match(text[-1:]) and _NO_SPACE.match(line[:1]):
        return text + line
    return text + separator + line


class _PageWriter:
    """Collects the lines of one page into Markdown blocks."""

    def __init__(self, words: frozenset[str], full_length: int) -> None:
        self._words = words
        self._full_length = full_length
        self._last_length = 0
        self._blocks: list[tuple[_Label | None, list[str]]] = []

    def add(self, line: str, label: _Label | None) -> None:
        """Add the next line of the page."""
        last, lines = self._blocks[-1] if self._blocks else (None, [])
        if _LEADERS.search(line):
            label, line = _CONTENTS, _LEADERS.sub(" … ", line).strip()
        if label is not None and label.kind in {"table", "contents"}:
            row = line if label.kind == "contents" else f"| {' | '.join(map(table_cell, label.cells))} |"
            if last is not None and last.kind == label.kind and (last.node == label.node or last.kind == "contents"):
                lines.append(row)
            else:
                self._blocks.append((label, [row]))
        elif self._continues(last, lines, line, label):
            wrapped = self._last_length >= self._full_length * _WRAPPED_LINE
            separator = " " if wrapped or (last is not None and last.level) else "\n"
            lines[-1] = _joined(lines[-1], line, self._words, separator)
        elif label is not None and label.kind == "list_item" and last is not None and last.kind == "list_item":
            self._blocks[-1] = (label, [*lines, line])
        else:
            self._blocks.append((label, [line]))
        self._last_length = len(line)

    def _continues(self, last: _Label | None, lines: list[str], line: str, label: _Label | None) -> bool:  # noqa: PLR0911
        if not lines or (last is not None and last.kind in {"table", "contents"}):
            return False
        if _BULLET.match(line) or _NUMBER.match(line):
            return False
        if last is not None and last.kind == "list_item":
            marked = _BULLET.match(lines[-1]) or _NUMBER.match(lines[-1])
            # The structure often takes an item's second line for an item or a paragraph of its own.
            if label is None or label.kind == "list_item":
                return bool(marked)
            return label.kind == "paragraph" and line[:1].islower()
        if label is not None and last is not None:
            return label.node == last.node
        if (last is not None and last.kind == "heading") or (
            label is not None and label.kind in {"heading", "list_item"}
        ):
            return False
        return len(lines[-1]) >= self._full_length * _FULL_LINE or not _SENTENCE_END.search(lines[-1])

    def markdown(self) -> str:
        """Write the page."""
        return "\n\n".join(filter(None, (self._block(label, lines) for label, lines in self._blocks)))

    @staticmethod
    def _block(label: _Label | None, lines: list[str]) -> str:
        if label is not None and label.kind == "heading":
            return "".join(heading(label.level, " ".join(lines)))
        if label is not None and label.kind == "table":
            if len(lines) == 1:
                return " ".join(label.cells)
            return "\n".join([lines[0], "|" + " --- |" * len(label.cells), *lines[1:]])
        if label is not None and label.kind == "list_item":
            return "\n".join(_item(line) for line in lines)
        return escape_lines("\n".join(lines))


_CONTENTS: Final = _Label("contents", -1)


def _item(line: str) -> str:
    text = line if _NUMBER.match(line) else f"- {_BULLET.sub('', line)}"
    return text.replace("\n", "\n  ")


def _label_of(line: str, known: dict[str, _Label]) -> _Label | None:
    """Look a raw line up; the structure's list items come without their bullets."""
    bullet = _BULLET.match(line)
    label = known.get(_skeleton(line)) or (known.get(_skeleton(line[bullet.end() :])) if bullet else None)
    if bullet and (label is None or label.kind in {"paragraph", "list_item"}):
        return _Label("list_item", -2)
    return label


def pdf_extract(data: bytes) -> Extract:
    """Extract the pages of a PDF as Markdown.

    Raises:
        UnreadableError: Encrypted or damaged.
    """
    result = extract(data, "application/pdf", structure=True, pages=True)
    raw = [clean_text(page["content"]) for page in result.pages or ()]
    lines = [[line.strip() for line in page.split("\n") if line.strip()] for page in raw]
    labels = _labels(result.document["nodes"] if result.document else [])
    furniture = _furniture(lines, labels)
    offset = _page_number_offset(lines)
    words = frozenset(word.lower() for page in raw for word in re.findall(r"\w{4,}", page))
    pages = []
    for number, page_lines in enumerate(lines, 1):
        kept = _without_furniture(page_lines, furniture, None if offset is None else number + offset)
        lengths = sorted(map(len, kept))
        writer = _PageWriter(words, lengths[len(lengths) * 4 // 5] if lengths else 0)
        for line in kept:
            writer.add(line, _label_of(line, labels.get(number, {})))
        pages.append(writer.markdown())
    empty = None
    if not any(pages):
        empty = "The PDF has no text layer, only images. Run OCR on it and add the result."
    return Extract(pages=pages, title=result.metadata.get("title"), empty_reason=empty)
