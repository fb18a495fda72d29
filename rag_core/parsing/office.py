"""Word-processor files, spreadsheets and the other formats that kreuzberg reads, to Markdown."""

import re
from datetime import UTC, datetime
from typing import Any, Final

from rag_core.parsing.engine import extract, structure_blocks
from rag_core.parsing.model import Extract

SPREADSHEETS: Final = frozenset(
    {
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "application/vnd.ms-excel",
        "application/vnd.oasis.opendocument.spreadsheet",
    }
)
_ESCAPE: Final = re.compile(r"\\([#*_~<>\[\]()`+.!{}-])")  # a vertical bar in a cell stays escaped
_EMPTY_ROW: Final = re.compile(r"^\|(?:[ \t]*\|)+[ \t]*\n?", re.M)


def metadata_time(value: Any) -> datetime | None:
    """Read an ISO 8601 time as aware UTC; None where it is none."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _language(value: Any) -> str | None:
    return value[:2].lower() if isinstance(value, str) and value[:2].isascii() and value[:2].isalpha() else None


def office_extract(data: bytes, mime: str) -> Extract:
    """Extract headings, paragraphs, lists and tables.

    Raises:
        UnreadableError: See `engine.extract`.
    """
    result = extract(data, mime, structure=True)
    nodes = result.document["nodes"] if result.document else []
    text = "\n\n".join(structure_blocks(nodes)) or result.content
    title = result.metadata.get("title")
    return Extract(text=text, title=title, language=_language(result.metadata.get("language")))


def spreadsheet_extract(data: bytes, mime: str) -> Extract:
    """Extract one Markdown table per sheet under the sheet's name; empty rows are left out.

    Raises:
        UnreadableError: See `engine.extract`.
    """
    result = extract(data, mime)
    text = _EMPTY_ROW.sub("", _ESCAPE.sub(r"\1", result.content))
    if not any(line.strip("|- ") for line in text.splitlines() if not line.startswith("## ")):
        return Extract(empty_reason="The workbook has no cell with text.")
    return Extract(text=text, title=result.metadata.get("title"))
