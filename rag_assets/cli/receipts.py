"""`rag receipts`: what was removed from the index, and that nothing of it can be found."""

import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import pyarrow as pa
import typer

from rag_assets.cli.output import CONSOLE, print_json_lines
from rag_core.config_loader import load_config
from rag_core.errors import PermanentError
from rag_core.stages.receipts import read_receipts
from rag_core.tables.store import Store

_TIME = "%Y-%m-%d %H:%M:%S"
_WAYS = ("id", "text", "vector")


def receipts(
    doc: Annotated[
        str | None, typer.Option("--doc", help="Only documents with this doc_id or external_id, or this in their uri.")
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option("--since", help="Only what was removed from this time on (UTC).", show_default=False),
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object a line, with all columns.")] = False,
    csv_output: Annotated[bool, typer.Option("--csv", help="CSV with a header, with all columns.")] = False,
) -> None:
    """Receipts of removed documents: when, how many rows, and that id, own text and own vectors find nothing."""
    if json_output and csv_output:
        raise PermanentError("rag receipts prints JSON lines or CSV, not both: leave out --json or --csv")
    store = Store.of(load_config().config.store)
    rows = read_receipts(store, doc=doc, since=since.replace(tzinfo=UTC) if since else None)
    if json_output:
        print_json_lines(rows.to_pylist())
    elif csv_output:
        _print_csv(rows)
    elif rows.num_rows:
        for row in rows.to_pylist():
            CONSOLE.print(_lines(row), highlight=False, markup=False)
    else:
        CONSOLE.print("no documents were removed" + (" that match" if doc or since else ""), highlight=False)


def _lines(row: dict[str, Any]) -> str:
    ways = ", ".join(way for way in _WAYS if row[f"unfindable_by_{way}"])
    searched = row["chunks_searched"]
    searches = f"{searched} of its chunks searched for" if searched else "its text and vectors not searched for"
    again, rows = row["indexed_again_at"], row["rows_removed"]
    return (
        f"{row['uri'].removeprefix('file://') or row['doc_id']}\n"
        f"  {row['reason']}, seen {row['absence_seen_at']:{_TIME}} UTC\n"
        f"  {rows:,} row{'' if rows == 1 else 's'} removed from {row['collection']} {row['removed_at']:{_TIME}} UTC\n"
        f"  not found by {ways}; {searches}" + (f"\n  indexed again {again:{_TIME}} UTC" if again else "")
    )


def _print_csv(rows: pa.Table) -> None:
    from pyarrow import csv

    csv.write_csv(rows, sys.stdout.buffer)
    sys.stdout.flush()
