"""`rag run`: everything that writes goes through the Dagster jobs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from rag_assets.cli.output import CONSOLE, ERRORS, print_json, print_text
from rag_core.config_loader import load_config

if TYPE_CHECKING:
    from rag_assets.runner import RunSummary


def run(
    source: Annotated[list[str] | None, typer.Option(help="Only this source; may be repeated.")] = None,
    stage: Annotated[
        str | None, typer.Option(help="Only this stage: documents, chunks, embeddings or index_partitions.")
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Allow a changed model or chunking to embed everything anew (rag plan).")
    ] = False,
    accept_deletions: Annotated[
        bool, typer.Option("--accept-deletions", help="Believe a source that lost most of its documents.")
    ] = False,
    json_output: Annotated[bool, typer.Option("--json", help="End with one JSON object.")] = False,
) -> None:
    """Bring what is out of date up to date, through the Dagster jobs, and publish the index."""
    from rag_assets.runner import run_pipeline

    loaded = load_config()
    with _progress_bars(quiet=json_output):
        summary = run_pipeline(loaded, sources=source, stage=stage, rebuild=rebuild, accept_deletions=accept_deletions)
    if json_output:
        print_json(summary.to_dict())
    else:
        CONSOLE.print(_readable(summary), highlight=False)
    for failure in summary.failures:
        ERRORS.print(f"[bold red]failed[/] {failure.step} of {failure.partitions}", highlight=False)
        print_text(ERRORS, failure.message)
    if summary.failures:
        print_text(
            ERRORS,
            "What was finished is kept; the same command goes on from there. The log of the run is in the Dagster UI.",
        )
        raise typer.Exit(1)


def _readable(summary: "RunSummary") -> str:
    """Say in a few lines what a run did."""
    repaired = f", {summary.repaired:,} repaired" if summary.repaired else ""
    return (
        f"documents   {summary.parsed:,} parsed, {summary.rejected:,} rejected\n"
        f"chunks      {summary.chunks:,} cut\n"
        f"embeddings  {summary.embedded:,} texts embedded, {summary.reused:,} reused\n"
        f"index       {summary.upserted:,} rows written, {summary.deleted:,} deleted{repaired}\n"
        f"{_checks_line(summary)}"
        f"            {summary.commits} tables committed, {summary.seconds:.1f} s\n"
    )


def _checks_line(summary: "RunSummary") -> str:
    counts = [f"{summary.checks_with(outcome):,} {outcome}" for outcome in ("passed", "warned", "failed")]
    return f"checks      {', '.join(counts)} (rag test shows them)\n" if summary.checks else ""


@contextmanager
def _progress_bars(*, quiet: bool) -> Iterator[None]:
    """Show a bar for each stage while it works; nothing at all when stderr is not a terminal."""
    if quiet or not ERRORS.is_terminal:
        yield
        return
    from resources.progress import set_listener

    columns = (TextColumn("{task.fields[asset]:<17}"), BarColumn(), MofNCompleteColumn(),
               TextColumn("{task.description}"), TimeElapsedColumn())  # fmt: skip
    with Progress(*columns, console=ERRORS) as bars:
        tasks: dict[tuple[str, str], TaskID] = {}

        def listen(asset: str, what: str, done: int, total: int) -> None:
            key = (asset, what)
            if key not in tasks:
                tasks[key] = bars.add_task(what, total=total or None, asset=asset)
            bars.update(tasks[key], completed=done, total=total or None)

        set_listener(listen)
        try:
            yield
        finally:
            set_listener(None)
