"""Where commands print: tables for people on stdout, JSON for machines on stdout, everything else on stderr."""

import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

CONSOLE = Console()
ERRORS = Console(stderr=True)


def print_text(console: Console, text: str) -> None:
    """Print sentences: wrapped between words on a terminal, one line each where programs read them."""
    console.print(text, markup=False, highlight=False, soft_wrap=not console.is_terminal)


def print_json(value: Any) -> None:
    """Print one JSON document, indented for a terminal and on one line for a pipe."""
    option = orjson.OPT_INDENT_2 if sys.stdout.isatty() else 0
    sys.stdout.buffer.write(orjson.dumps(value, default=str, option=option | orjson.OPT_APPEND_NEWLINE))
    sys.stdout.flush()


def print_json_lines(rows: Iterable[Mapping[str, Any]]) -> None:
    """Print one JSON object a line, as the rows arrive."""
    for row in rows:
        sys.stdout.buffer.write(orjson.dumps(row, default=str, option=orjson.OPT_APPEND_NEWLINE))
    sys.stdout.flush()


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> Table:
    """Build a table; numbers are aligned right."""
    listed = [list(row) for row in rows]
    view = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        numeric = bool(listed) and all(isinstance(row[number], int | float) for row in listed)
        view.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in listed:
        view.add_row(*(_cell(value) for value in row))
    return view


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.3f}"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    return str(value)
