"""Formats that are text already: Markdown, plain text, source code, JSON, NDJSON, XML, delimited tables."""

import csv
import io
import json
import re
from collections.abc import Iterator
from typing import Any, Final

from rag_core.parsing.markdown import fence, table_lines
from rag_core.parsing.model import Extract

_FRONT_MATTER: Final = re.compile(r"\ufeff?---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.S)
_YAML_TITLE: Final = re.compile(r"""^title:[ \t]*(["']?)(.+?)\1[ \t]*$""", re.M)
_TOML_TITLE: Final = re.compile(r"\+\+\+[ \t]*\n.*?^title\s*=\s*([\"'])(.+?)\1", re.M | re.S)
_DELIMITERS: Final = (",", ";", "\t", "|")
_MAX_JSON_DEPTH: Final = 40
_MAX_PADDING: Final = 20  # rows are filled up to the widest; one absurdly wide row must not blow the rest up
_MAX_FIELD_CHARS: Final = 16 * 1024 * 1024


def markdown_extract(text: str) -> Extract:
    """Keep Markdown as it is; a front matter gives the title and leaves the text."""
    text = text.replace("\r\n", "\n")
    front = _FRONT_MATTER.match(text)
    if front is None:
        toml = _TOML_TITLE.match(text)
        return Extract(text=text, title=toml[2] if toml else None)
    title = _YAML_TITLE.search(front[1])
    return Extract(text=text[front.end() :], title=title[2] if title else None)


def code_extract(text: str, language: str) -> Extract:
    """Put source code into a fence, so that its comments are not taken for headings."""
    return Extract(text=fence(text.rstrip(), language) if text.strip() else "")


def _value(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value).strip()


def _json_lines(value: Any, depth: int) -> Iterator[str]:
    indent = "  " * depth
    if depth > _MAX_JSON_DEPTH:
        yield indent + json.dumps(value, ensure_ascii=False)
    elif isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, dict | list) and item:
                yield f"{indent}- {key}:"
                yield from _json_lines(item, depth + 1)
            else:
                yield f"{indent}- {key}: {'' if item in ({}, []) else _value(item)}"
    elif isinstance(value, list):
        for number, item in enumerate(value, 1):
            if isinstance(item, dict | list) and item:
                yield f"{indent}- {number}:"
                yield from _json_lines(item, depth + 1)
            else:
                yield f"{indent}- {'' if item in ({}, []) else _value(item)}"
    else:
        yield indent + _value(value)


def _loads(text: str) -> Any:
    """Parse JSON; ValueError covers nesting that is too deep, too."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def json_extract(text: str) -> Extract:
    """Write JSON as nested `key: value` lines; a list of records gets a blank line between two of them.

    What does not parse (cut off, with comments) is kept as the text it is.
    """
    try:
        value = _loads(text)
    except ValueError:
        return Extract(text=text)
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return Extract(text="\n\n".join("\n".join(_json_lines(item, 0)) for item in value))
    title = value.get("title") if isinstance(value, dict) else None
    return Extract(text="\n".join(_json_lines(value, 0)), title=title if isinstance(title, str) else None)


def ndjson_extract(text: str) -> Extract:
    """Write each line as a record; a line that does not parse is kept as it is."""
    records = []
    for line in text.splitlines():
        if not line.strip():
            continue
        try:
            records.append("\n".join(_json_lines(_loads(line), 0)))
        except ValueError:
            records.append(line)
    return Extract(text="\n\n".join(records))


def xml_extract(text: str) -> Extract:
    """Keep the character data of XML, one line for each element that has some; entities are not resolved."""
    from lxml import etree

    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, recover=True, remove_comments=True, remove_pis=True, huge_tree=False
    )
    body = re.sub(r"^\s*<\?xml[^>]*\?>", "", text)
    try:
        root = etree.fromstring(body.encode("utf-8", "replace"), parser)
    except etree.XMLSyntaxError:
        root = None
    if root is None:
        return Extract(text=text)
    lines = (" ".join(part.split()) for part in root.itertext(with_tail=True))
    titles = (e for e in root.iter("{*}title", "title") if e.text and e.text.strip())
    title = next(titles, None)
    return Extract(text="\n".join(line for line in lines if line), title=None if title is None else title.text)


def _delimiter(text: str, mime: str) -> str:
    if mime == "text/tab-separated-values":
        return "\t"
    lines = [line for line in text[:65_536].splitlines()[:50] if line.strip()]
    if len(lines) > 20:
        lines = lines[:-1]  # the sample may end inside a line

    def score(delimiter: str) -> tuple[int, int]:
        counts = [len(row) for row in csv.reader(lines, delimiter=delimiter)]
        usual = max(set(counts), key=counts.count)
        return (counts.count(usual) if usual > 1 else 0, usual)

    return max(_DELIMITERS, key=score) if lines else ","


def _rows(text: str, delimiter: str) -> Iterator[list[str]]:
    csv.field_size_limit(_MAX_FIELD_CHARS)
    for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
        if any(value.strip() for value in row):
            yield row


def csv_extract(text: str, mime: str) -> Extract:
    """Write a delimited table as a Markdown table; what is no table (one column, broken quotes) stays text."""
    text = text.replace("\x00", "")
    try:
        delimiter = _delimiter(text, mime)
        widths = [len(row) for row in _rows(text, delimiter)]
        width = max(widths, default=0)
        if width < 2 or width * len(widths) > _MAX_PADDING * sum(widths):
            return Extract(text=text)
        return Extract(text="\n".join(table_lines(_rows(text, delimiter), width)))
    except csv.Error:
        return Extract(text=text)
