"""`rag slo`: how each source stands to its freshness objective."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from rag_assets.cli.output import CONSOLE, print_json, print_text, table
from rag_core.config import RagConfig
from rag_core.config_loader import load_config
from rag_core.errors import ConfigError
from rag_core.freshness.latency import pending, slowest
from rag_core.freshness.measuring import Measured, measure
from rag_core.freshness.slo import Standing
from rag_core.reports.formats import NOTHING, age, counted
from rag_core.tables.store import Store

_SHOWN = ("object_key", "kind", "partition_key", "changed_at", "basis", "seen_at", "queryable_at", "latency_s", "age_s")


def slo(
    source: Annotated[list[str] | None, typer.Option(help="Only this source; may be repeated.")] = None,
    changes: Annotated[
        int, typer.Option(min=0, help="List so many of the slowest changes, and of those that are not searchable yet.")
    ] = 0,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Freshness of each source: share of changes searchable in time, error budget, burn rates, age of the data."""
    config = load_config(check_files=False).config
    store, now = Store.of(config.store), datetime.now(UTC)
    found = [measure(store, config, name, now=now) for name in _names(config, source)]
    if json_output:
        print_json({"now": now, "sources": [_document(one, changes) for one in found]})
        return
    for number, one in enumerate(found):
        if number:
            CONSOLE.print()
        CONSOLE.print(_standing_table(one.standing))
        for reason in one.standing.reasons:
            print_text(CONSOLE, reason)
        if changes:
            _print_changes(one, changes)


def _names(config: RagConfig, chosen: Sequence[str] | None) -> list[str]:
    known = [one.name for one in config.sources]
    if unknown := sorted(set(chosen or ()) - set(known)):
        raise ConfigError(f"no source {', '.join(unknown)}; expected one of {', '.join(known)}")
    return list(dict.fromkeys(chosen or known))


def _standing_table(standing: Standing) -> Table:
    objective, late = standing.objective, f"{standing.bad:,} late" if standing.bad else "none late"
    rows = (
        ("promised", f"{_percent(objective.target)} of changes within {age(objective.within_s)}, over "
                     f"{objective.window_days} days; nothing waits for more than {age(objective.hard_limit_s)}"),
        ("attained", f"{_percent(standing.attained)} of {counted(standing.counted, 'change')}, {late}"),
        ("budget left", _percent(standing.budget_left)),
        ("burn rates", ", ".join(f"{window} {rate:.1f}" for window, rate in standing.burn.items())),
        ("latency", f"p50 {age(standing.p50_s)}, p95 {age(standing.p95_s)}, max {age(standing.max_s)}"),
        ("data age", f"{age(standing.data_age_s)}, {standing.pending:,} pending" if standing.pending
                     else "nothing is pending"),
    )  # fmt: skip
    view = table(f"{standing.source}: {standing.state}", ("", ""), rows)
    view.show_header = False
    return view


def _percent(share: float | None) -> str:
    """Write a share so that 99.95 % is not 100 %."""
    return NOTHING if share is None else f"{100 * share:.4g} %"


def _document(one: Measured, most: int) -> dict[str, Any]:
    listed = {"slowest": _slowest(one, most), "waiting": pending(one.rows, most)} if most else {}
    chosen = {name: [{column: row[column] for column in _SHOWN} for row in rows] for name, rows in listed.items()}
    return {**one.standing.to_dict(), "budget_left": one.standing.budget_left, **chosen}


def _slowest(one: Measured, most: int) -> list[dict[str, Any]]:
    return slowest(one.rows, most, now=one.standing.now, days=one.standing.objective.window_days)


def _print_changes(one: Measured, most: int) -> None:
    lists = (("searchable, the slowest", "latency_s", _slowest(one, most)),
             ("not searchable yet, the oldest", "age_s", pending(one.rows, most)))  # fmt: skip
    for title, column, rows in lists:
        if rows:
            columns = (column.removesuffix("_s"), "change", "object", "partition", "changed", "known from")
            shown = ([age(row[column]), row["kind"], row["object_key"] or row["object_id"], row["partition_key"],
                      row["changed_at"], row["basis"]] for row in rows)  # fmt: skip
            CONSOLE.print()
            CONSOLE.print(table(f"{one.standing.source}: {title}", columns, shown))
