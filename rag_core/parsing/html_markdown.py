"""Writing a pruned web page as Markdown: headings, paragraphs, lists, tables, code blocks, quotations.

Links and emphasis become plain text: their marks would cut phrases apart for searches and cost tokens. Written against
lxml because going back through HTML to a converter takes a second parse, and because tables need care (spans, spacer
columns, layout tables).
"""

import re
from typing import Any, Final

from rag_core.parsing.html_tables import is_layout_table, table_rows
from rag_core.parsing.markdown import fence, heading, markdown_table

_SPACE: Final = re.compile(r"[ \t\n\r\f\u00a0]+")
_FLATTENED: Final = (
    "a span em i strong b u s font small big abbr acronym cite dfn time mark ins del label bdi bdo q var center "
    "nobr wbr strike blink ruby rb rt rp output data"
)
_CODE: Final = frozenset({"code", "kbd", "samp", "tt"})
_INLINE: Final = _CODE | {"br", "img", "sub", "sup"}
_HEADINGS: Final = {f"h{level}": level for level in range(1, 7)}
_TITLE_LINE: Final = re.compile(r"(?=#{1,6}\s|```|~~~|\|)")
_MAX_DEPTH: Final = 120  # deeper nesting is written as plain text: Python's stack is finite
_RAISED: Final = str.maketrans("0123456789+-=()n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿ")
_LOWERED: Final = str.maketrans("0123456789+-=()", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎")
_SHIFTED: Final = re.compile(r"[0-9+\-=()n]{1,6}")
_LANGUAGE: Final = re.compile(r"(?:^|\s)(?:highlight|language|lang|brush:|sourceCode|src)[-\s]+([A-Za-z0-9+#]{1,20})\b")


def flatten_inline(root: Any) -> None:
    """Unwrap elements that carry no structure, in place and at C speed; namespaced ones (inline XBRL) too."""
    from lxml import etree

    strange = {e.tag for e in root.iter("*") if ":" in e.tag or "}" in e.tag}
    for block in root.iter("span"):
        kind = block.get("class")
        if kind == "sig":
            block.tag = "code"
        elif kind == "classifier":  # the type of a parameter, set apart by the style sheet only
            block.text = f" : {block.text or ''}"
    etree.strip_tags(root, *_FLATTENED.split(), *strange)


def _plain(element: Any) -> str:
    return _SPACE.sub(" ", "".join(element.itertext()))


def _inline(element: Any) -> str:
    tag = element.tag
    if tag == "br":
        return "\n"
    if tag == "img":
        alt = _SPACE.sub(" ", element.get("alt") or "").strip()
        return f" {alt} " if " " in alt and len(alt) <= 300 else ""
    text = _plain(element)
    if tag in {"sub", "sup"}:
        return text.translate(_RAISED if tag == "sup" else _LOWERED) if _SHIFTED.fullmatch(text) else text
    inner = text.strip()
    if not inner or "`" in inner:
        return text
    return f"`{inner}`"


def flat_text(element: Any) -> str:
    """Write everything below an element as one line."""
    parts: list[str] = [element.text or ""]
    for child in element.iter("*"):
        if child is element:
            continue
        if child.tag in _INLINE and child.tag not in _CODE:
            parts.append(_inline(child))
            if child.tag in {"br", "img"}:
                parts.append(child.tail or "")
                continue
        else:
            parts.append("" if child.tag in _CODE else " ")
            parts.append(child.text or "")
        parts.append(child.tail or "")
    return " ".join("".join(parts).split())


class MarkdownWriter:
    """Turns elements into Markdown blocks."""

    def blocks(self, element: Any, depth: int = 0) -> list[str]:
        """Write the children of an element; each string is one block without surrounding blank lines."""
        if depth > _MAX_DEPTH:
            return self._paragraph([_plain(element)])
        out: list[str] = []
        run: list[str] = [_SPACE.sub(" ", element.text)] if element.text else []
        for child in element:
            if child.tag in _INLINE:
                run.append(_inline(child))
            else:
                out.extend(self._paragraph(run))
                run.clear()
                out.extend(self._block(child, depth + 1))
            if child.tail:
                run.append(_SPACE.sub(" ", child.tail))
        out.extend(self._paragraph(run))
        return out

    def _paragraph(self, run: list[str]) -> list[str]:
        if not run:
            return []
        lines = (" ".join(line.split()) for line in "".join(run).split("\n"))
        text = "\n".join(line for line in lines if line)
        return [_TITLE_LINE.sub(r"\\", text, count=1) if _TITLE_LINE.match(text) else text] if text else []

    def _block(self, element: Any, depth: int) -> list[str]:  # noqa: PLR0911 - one return per kind
        tag = element.tag
        if tag in _HEADINGS:
            return heading(_HEADINGS[tag], flat_text(element))
        if tag in {"ul", "ol", "menu", "dir"}:
            return self._list(element, depth)
        if tag == "pre":
            return self._code(element)
        if tag == "table":
            return self._table(element, depth)
        if tag == "blockquote":
            quoted = "\n\n".join(self.blocks(element, depth))
            return ["\n".join(f"> {line}".rstrip() for line in quoted.split("\n"))] if quoted else []
        if tag == "dt":
            return self._paragraph([flat_text(element)])
        if tag in {"hr", "col", "colgroup"}:
            return []
        return self.blocks(element, depth)

    def _list(self, element: Any, depth: int) -> list[str]:
        ordered = element.tag == "ol"
        start = element.get("start") or "1"
        number = int(start) if start.isdecimal() and len(start) < 9 else 1
        items: list[str] = []
        for child in element:
            blocks = self.blocks(child, depth + 1) if child.tag == "li" else self._block(child, depth + 1)
            if not blocks:
                continue
            marker = f"{number}. " if ordered else "- "
            number += 1
            body = blocks[0]
            for block in blocks[1:]:
                body += ("\n" if block.startswith(("- ", "1. ")) else "\n\n") + block
            items.append(marker + body.replace("\n", "\n" + " " * len(marker)))
        return ["\n".join(items)] if items else []

    def _code(self, element: Any) -> list[str]:
        for line_break in element.iter("br"):
            line_break.text = "\n"
        text = "".join(element.itertext()).strip("\n")
        if not text.strip():
            return []
        language = ""
        node = element
        for _ in range(3):
            match = _LANGUAGE.search(node.get("class") or "") if node is not None else None
            if match:
                language = match[1].lower()
                break
            node = node.getparent() if node is not None else None
        return [fence(text, "" if language in {"default", "none", "text", "highlight"} else language)]

    def _table(self, element: Any, depth: int) -> list[str]:
        if is_layout_table(element):
            return self._layout(element, depth)
        caption = element.find("caption")
        out = self._paragraph([flat_text(caption)]) if caption is not None else []
        rows = table_rows(element, flat_text)
        return [*out, markdown_table(rows)] if rows else out

    def _layout(self, element: Any, depth: int) -> list[str]:
        out: list[str] = []
        label = ""
        for cell in element.iter("td", "th", "caption"):
            if any(parent is not element and parent.tag == "table" for parent in _up_to(cell, element)):
                continue
            if "icon" in (cell.get("class") or "").split():  # AsciiDoc: the word Note, Tip, Warning beside its text
                label = flat_text(cell).rstrip(":")
                continue
            blocks = self.blocks(cell, depth + 1)
            if label and blocks:
                blocks[0] = f"{label}: {blocks[0]}"
                label = ""
            out.extend(blocks)
        return out


def _up_to(cell: Any, table: Any) -> list[Any]:
    parents = []
    for parent in cell.iterancestors():
        if parent is table:
            break
        parents.append(parent)
    return parents
