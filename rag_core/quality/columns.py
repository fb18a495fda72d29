"""What tests can look at: columns of a table, and measures of columns that are too heavy to be held as a whole."""

from typing import Final

import pyarrow as pa

from rag_core.config_problems import nearest
from rag_core.tables.delta import SCHEMAS

_LONG_TEXTS: Final = ("text", "context")
_OF_TEXTS: Final = ("length", "pii")
_OF_LISTS: Final = ("dim",)
_OF_VECTORS: Final = ("norm", "nan_count")


def is_heavy(table: str, column: str) -> bool:
    """Whether a column is streamed into measures instead of being read as it is: long texts, lists, vectors."""
    return column in _LONG_TEXTS or pa.types.is_list(SCHEMAS[table].field(column).type)


def stand_in(table: str, column: str) -> str:
    """Return the measure that is null where a heavy column is; a light column stands for itself."""
    if not is_heavy(table, column):
        return column
    return f"{column}.{'dim' if pa.types.is_list(SCHEMAS[table].field(column).type) else 'length'}"


def measures(table: str, column: str) -> tuple[str, ...]:
    """Return the measures of a column that conditions may use, such as `text.length`."""
    type_ = SCHEMAS[table].field(column).type
    if pa.types.is_string(type_):
        return _OF_TEXTS
    if pa.types.is_list(type_):
        return _OF_LISTS + (_OF_VECTORS if pa.types.is_floating(type_.value_type) else ())
    return ()


def problem_of(table: str, name: str) -> str | None:
    """Say what is wrong with a column or measure that a test wants to read; None if nothing is."""
    column, _, measure = name.partition("@")[0].partition(".")
    known = SCHEMAS[table].names
    if column not in known:
        return f"{table} has no column {column}{nearest(column, known)}"
    if not measure and is_heavy(table, column):
        return f"{column} is not held in memory; use {', '.join(f'{column}.{one}' for one in measures(table, column))}"
    if measure == "document_share" or measure.startswith("in."):
        return problem_of(table, column)
    if measure:
        possible = measures(table, column)
        measure = "norm" if measure == "shared" else measure  # what has the one has the other
        if measure not in possible:
            shown = ", ".join(f"{column}.{one}" for one in possible) or "none"
            return f"{column} of {table} has no measure {measure}; it has: {shown}"
    return None


def parent_problem(name: str, tables: tuple[str, ...]) -> str | None:
    """Say what is wrong with `table.column` of another table."""
    table, _, column = name.partition(".")
    if table not in tables:
        return f"no table {table}{nearest(table, tables)}"
    if column not in SCHEMAS[table].names:
        return f"{table} has no column {column}{nearest(column, SCHEMAS[table].names)}"
    return f"{name} is too heavy to be compared" if is_heavy(table, column) else None
