"""Reading HTML tables into rows of cells: spans resolved, spacer columns gone, layout tables told from data."""

from collections.abc import Callable
from typing import Any, Final

_MAX_SPAN: Final = 100  # browsers stop at 1000; a crafted page must not make millions of cells
_BLOCKS_IN_LAYOUT: Final = (".//table", ".//pre", ".//h1", ".//h2", ".//h3", ".//h4", ".//ul/li/ul")


def own_rows(table: Any) -> list[Any]:
    """Return the `tr` elements of a table, without those of tables inside it."""
    rows = []
    for child in table:
        if child.tag == "tr":
            rows.append(child)
        elif child.tag in {"thead", "tbody", "tfoot"}:
            rows.extend(row for row in child if row.tag == "tr")
    return rows


def is_layout_table(table: Any) -> bool:
    """Tell whether a table only places blocks on the page."""
    if table.get("role") in {"presentation", "none"}:
        return True
    rows = own_rows(table)
    widest = max((sum(1 for cell in row if cell.tag in {"td", "th"}) for row in rows), default=0)
    if widest < 2 or (len(rows) == 1 and table.find(".//th") is None):
        return True
    return any(table.find(path) is not None for path in _BLOCKS_IN_LAYOUT)


def _span(cell: Any, name: str) -> int:
    value = cell.get(name) or "1"
    return min(max(int(value), 1), _MAX_SPAN) if value.isdecimal() and len(value) < 6 else 1


def table_rows(table: Any, text_of: Callable[[Any], str]) -> list[list[str]]:
    """Read the cells of a data table.

    A cell over several rows is repeated in each, so that every row can be read alone; one over several columns stands
    in the first. Columns and rows without text are left out.
    """
    grid: list[list[str]] = []
    hanging: dict[int, tuple[int, str]] = {}  # column -> (rows left, text)
    for row in own_rows(table):
        line: list[str] = []
        cells = iter([cell for cell in row if cell.tag in {"td", "th"}])
        cell = next(cells, None)
        while cell is not None or len(line) in hanging:
            column = len(line)
            if column in hanging:
                left, text = hanging.pop(column)
                line.append(text)
                if left > 1:
                    hanging[column] = (left - 1, text)
                continue
            text, down, across = text_of(cell), _span(cell, "rowspan"), _span(cell, "colspan")
            for offset in range(across):
                value = text if offset == 0 else ""
                line.append(value)
                if down > 1:
                    hanging[column + offset] = (down - 1, value)
            cell = next(cells, None)
        grid.append(line)
    width = max(map(len, grid), default=0)
    used = [i for i in range(width) if any(i < len(line) and line[i] for line in grid)]
    lines = [[line[i] if i < len(line) else "" for i in used] for line in grid]
    return [line for line in lines if any(line)]
