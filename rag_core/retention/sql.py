"""Conditions on tables as Delta's delete takes them: SQL text."""

from collections.abc import Iterable
from datetime import datetime


def quoted(value: str | datetime) -> str:
    """Write a value as SQL."""
    text = value.isoformat() if isinstance(value, datetime) else value
    return "'" + text.replace("'", "''") + "'"


def in_list(column: str, values: Iterable[str | datetime]) -> str:
    """Write `column IN (...)`; false if there are no values."""
    listed = ", ".join(map(quoted, values))
    return f"({column} IN ({listed}))" if listed else "(false)"
