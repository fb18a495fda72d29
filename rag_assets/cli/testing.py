"""`rag test`: run the declared tests of the tables, in the manner of dbt."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from rag_assets.cli.output import CONSOLE, ERRORS, print_json_lines
from rag_core.config import RagConfig
from rag_core.config_loader import load_config
from rag_core.config_problems import nearest
from rag_core.errors import ConfigError
from rag_core.partitions import all_partition_keys, partition_keys_of
from rag_core.quality.accepting import begin_anew, jumped
from rag_core.quality.declared import DeclaredTable
from rag_core.quality.loading import load_declarations
from rag_core.quality.results import Result, figure
from rag_core.quality.running import Progress as OnProgress
from rag_core.quality.running import newest_slice, run_tests
from rag_core.tables.delta import PARTITIONED, partition_values
from rag_core.tables.store import Store

_ORDER = ("documents", "chunks", "embeddings", "index_partitions", "retrieval_eval")
_STYLES = {"pass": "green", "warn": "yellow", "error": "bold red"}
_SHOWN_PARTITIONS = 5

Reporter = Callable[[str], OnProgress | None]


def test(
    select: Annotated[
        list[str] | None, typer.Option("--select", "-s", help="A table, or table.test; may be repeated.")
    ] = None,
    source: Annotated[str | None, typer.Option("--source", help="Only partitions of this source.")] = None,
    partition: Annotated[str | None, typer.Option("--partition", help="Only this partition.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object a line: a test of a partition.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Test again what was tested before.")] = False,
    accept: Annotated[
        bool,
        typer.Option("--accept", help="Take present values for the history that jumps are judged against from now on."),
    ] = False,
) -> None:
    """Run the declared tests; failing rows are kept in the table quality_failures. Exit code 1: one is an error."""
    config = load_config().config
    chosen = _chosen(load_declarations(config), select or [])
    keys = _keys(config, source, partition)
    run_id, results = f"rag-test-{uuid.uuid4().hex[:12]}", list[Result]()
    store, jumps = Store.of(config.store), dict[str, set[str]]()
    with _progress_bar(quiet=json_output) as report:
        for table, tests in chosen.items():
            slice_ = newest_slice(store, table, _existing(config, table, keys))
            if accept:
                jumps[table] = jumped(slice_, config, run_id=run_id, tests=tests)
            results += run_tests(
                slice_, config, run_id=run_id, tests=tests, force=force, accept=accept, on_progress=report(table)
            )
    if accept:
        begin_anew(store, config, jumps, run_id=run_id)
    if json_output:
        print_json_lines({**result.__dict__, "examples": result.failing} for result in results)
    else:
        _print(results)
    if any(result.outcome == "error" for result in results):
        raise typer.Exit(1)


def _chosen(declared: dict[str, DeclaredTable], select: Sequence[str]) -> dict[str, set[str] | None]:
    """Return the tests of each table to run, None for all, in the order of the pipeline."""
    chosen: dict[str, set[str] | None] = {}
    for text in select:
        table, _, name = text.partition(".")
        if table not in declared:
            raise ConfigError(f"--select {text}: no declared tests of a table {table}{nearest(table, declared)}")
        names = [test.name for test in declared[table].tests]
        if name and name not in names:
            raise ConfigError(f"--select {text}: {table} has no test {name}{nearest(name, names)}")
        if not name:
            chosen[table] = None
        elif (before := chosen.setdefault(table, set())) is not None:
            before.add(name)
    known: dict[str, set[str] | None] = chosen if select else dict.fromkeys(declared)
    return {table: known[table] for table in _ORDER if table in known}


def _keys(config: RagConfig, source: str | None, partition: str | None) -> tuple[str, ...] | None:
    if partition is not None:
        if partition not in (keys := all_partition_keys(config)):
            raise ConfigError(f"--partition {partition}: no such partition{nearest(partition, keys)}")
        return (partition,)
    if source is not None:
        if source not in (names := [one.name for one in config.sources]):
            raise ConfigError(f"--source {source}: no such source{nearest(source, names)}")
        return tuple(partition_keys_of(config, source))
    return None


def _existing(config: RagConfig, table: str, keys: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Return the partitions to test: those that are asked for, else those that hold rows or did before."""
    if table not in PARTITIONED or keys is not None:
        return keys
    hold = set(partition_values(Store.of(config.store), table, "partition_key"))
    return tuple(key for key in all_partition_keys(config) if key in hold)


def _print(results: Sequence[Result]) -> None:
    """Print a line for each test, below it the partitions in which it fails, and the summary."""
    by_test: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        by_test.setdefault((result.table, result.test), []).append(result)
    counts = {"pass": 0, "warn": 0, "error": 0}
    for number, ((table, name), listed) in enumerate(by_test.items(), 1):
        failed = [result for result in listed if result.outcome != "pass"]
        outcome = max((result.outcome for result in listed), key=tuple(counts).index)
        counts[outcome] += 1
        dots = "." * max(2, 56 - len(table) - len(name))
        CONSOLE.print(
            f"{number} of {len(by_test)} [{_STYLES[outcome]}]{outcome.upper():<5}[/] {table}.{name} [dim]{dots}[/] "
            + escape(_summary(listed, failed)),
            highlight=False,
            soft_wrap=True,
        )
        for result in failed[:_SHOWN_PARTITIONS]:
            _print_failure(result)
        if len(failed) > _SHOWN_PARTITIONS:
            CONSOLE.print(f"       and {len(failed) - _SHOWN_PARTITIONS} partitions more", highlight=False)
    tested = sum(not result.reused for result in results)
    CONSOLE.print(f"\n{len(results):,} results, {tested:,} of them new; the others were tested before", highlight=False)
    CONSOLE.print(
        f"Done. PASS={counts['pass']} WARN={counts['warn']} ERROR={counts['error']} TOTAL={len(by_test)}",
        highlight=False,
    )


def _summary(listed: Sequence[Result], failed: Sequence[Result]) -> str:
    rows, partitions = sum(result.rows for result in listed), len(listed)
    if not failed:
        values = [result.value for result in listed if result.value is not None]
        low, high = (min(values), max(values)) if values else (0.0, 0.0)
        value = "" if not values or high == 0 else f", {figure(low)}" + ("" if low == high else f" to {figure(high)}")
        return f"{rows:,} rows, {partitions} partition{'' if partitions == 1 else 's'}{value}"
    failing = sum(result.failing_rows for result in failed)
    count = f"{failing:,} of {rows:,} rows, " if failing else ""
    return f"{count}{len(failed)} of {partitions} partitions"


def _print_failure(result: Result) -> None:
    held = ", held back" if result.holds_back else ""
    if result.value is None:
        found = result.description
    elif result.failing_rows:
        found = f"{result.failing_rows:,} of {result.rows:,} rows fail, expected {result.threshold}"
    else:
        found = f"found {figure(result.value)}, expected {result.threshold}"
    CONSOLE.print(f"       {result.partition_key}{held}: {escape(found)}", highlight=False, soft_wrap=True)
    for key, value in result.failing[:3]:
        CONSOLE.print(f"         {escape(key)}  [dim]{escape(value[:100])}[/]", highlight=False, soft_wrap=True)


@contextmanager
def _progress_bar(*, quiet: bool) -> Iterator[Reporter]:
    """Show a bar for each table while it is tested; nothing when stderr is not a terminal."""
    if quiet or not ERRORS.is_terminal:
        yield lambda _table: None
        return
    columns = (TextColumn("{task.fields[table]:<17}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=ERRORS, transient=True) as bars:

        def of_table(table: str) -> OnProgress:
            task = bars.add_task("", total=None, table=table)
            return lambda _key, done, total: bars.update(task, completed=done, total=total)

        yield of_table
