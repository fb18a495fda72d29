"""The one place that calls kreuzberg: its settings, its errors as sentences, its structure as Markdown."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final

from rag_core.parsing.markdown import fence, heading, markdown_table
from rag_core.parsing.model import UnreadableError

_CELL_MARKS: Final = re.compile(r"(\*{1,3}|~~)(?=\S)(.+?)(?<=\S)\1|</?u>")
_ENCRYPTED: Final = re.compile(r"password|encrypt", re.I)
_DAMAGED: Final = re.compile(
    r"invalid|EOCD|FormatError|corrupt|truncat|unexpected end|unexpected eof|not a valid|failed to fill|checksum|"
    r"missing",
    re.I,
)


@cache
def _config(structure: bool, pages: bool) -> Any:
    import kreuzberg

    config = kreuzberg.ExtractionConfig(
        use_cache=False,
        enable_quality_processing=False,
        output_format="markdown",
        include_document_structure=structure,
        pages=kreuzberg.PageConfig(extract_pages=True) if pages else None,
        concurrency=kreuzberg.ConcurrencyConfig(max_threads=1),
    )
    config.disable_ocr = True
    config.max_archive_depth = 0  # embedded files are not documents of ours, and images in them would call for OCR
    return config


def extract(data: bytes, mime: str, *, structure: bool = False, pages: bool = False) -> Any:
    """Run kreuzberg on a document in memory; nothing is cached or written.

    Raises:
        UnreadableError: The document is encrypted, damaged or of a type that kreuzberg does not read.
    """
    import kreuzberg

    try:
        return kreuzberg.extract_bytes_sync(data, mime, _config(structure, pages))
    except kreuzberg.KreuzbergError as error:
        raise UnreadableError(reason_of(str(error), mime), mime) from error


def reason_of(message: str, mime: str) -> str:
    """Turn a parser's error into a sentence that a person can act on."""
    detail = message.removeprefix("ParsingError: ").strip().rstrip(".")
    half = len(detail) // 2
    if detail[:half] == detail[half + 2 :]:  # kreuzberg often says it twice
        detail = detail[:half]
    detail = detail.replace("PdfiumLibraryInternalError: ", "")[:200]
    if _ENCRYPTED.search(message):
        return f"The document is encrypted and needs a password ({mime}). Save a copy without the password."
    if "unsupported" in message.lower():
        return f"The type {mime} is not supported ({detail}). Convert it to PDF, DOCX, HTML or text."
    if _DAMAGED.search(message):
        return f"The document is damaged or truncated: it cannot be read as {mime} ({detail}). Get a complete copy."
    return f"The document cannot be read as {mime} ({detail}). Open it, save it again, and add the new copy."


def _cell(text: str) -> str:
    """Strip the inline marks that kreuzberg writes into table cells."""
    previous = None
    while previous != text:
        previous, text = text, _CELL_MARKS.sub(lambda mark: mark[2] or "", text)
    return text


def grid_rows(grid: Mapping[str, Any]) -> list[list[str]]:
    """Lay the cells of a table node out in rows; empty rows are left out."""
    rows = [[""] * grid["cols"] for _ in range(grid["rows"])]
    for cell in grid["cells"]:
        rows[cell["row"]][cell["col"]] = _cell(cell["content"])
    return [row for row in rows if any(value.strip() for value in row)]


def _list(nodes: Sequence[Mapping[str, Any]], node: Mapping[str, Any], depth: int) -> str:
    lines: list[str] = []
    marker = 0
    for index in node.get("children") or ():
        child = nodes[index]
        content = child["content"]
        if content["node_type"] == "list":
            lines.append("  " + _list(nodes, child, depth + 1).replace("\n", "\n  "))
            continue
        marker += 1
        text = " ".join((content.get("text") or "").split())
        if text:
            lines.append(f"{marker}. {text}" if node["content"].get("ordered") else f"- {text}")
        if child.get("children") and depth < 20:
            lines.extend(
                "  " + line for line in _list(nodes, {**child, "content": node["content"]}, depth + 1).split("\n")
            )
    return "\n".join(line for line in lines if line.strip())


def structure_blocks(nodes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Write kreuzberg's document structure as Markdown blocks, without emphasis and without escapes."""
    for node in nodes:
        content = node["content"]
        kind, text = content["node_type"], (content.get("text") or "").strip()
        if kind in {"heading", "title"}:
            yield from heading(content.get("level") or 1, text)
        elif kind == "list":
            parent = node.get("parent")
            if parent is None or nodes[parent]["content"]["node_type"] not in {"list", "list_item"}:
                yield _list(nodes, node, 0)
        elif kind == "table":
            rows = grid_rows(content["grid"])
            if rows:
                yield markdown_table(rows)
        elif kind == "code" and text:
            yield fence(text, content.get("language") or "")
        elif kind == "image":
            description = " ".join((content.get("description") or "").split())
            if " " in description:
                yield description
        elif kind not in {"list_item", "group", "page_break"} and text:
            yield text
