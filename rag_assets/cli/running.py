"""`rag run` and `rag dev`: everything that writes goes through the Dagster jobs."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from rag_assets.cli.output import CONSOLE, ERRORS, print_json, print_text
from rag_core.config_loader import load_config
from rag_core.tables.store import Store

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
    json_output: Annotated[bool, typer.Option("--json", help="End with one JSON object.")] = False,
) -> None:
    """Bring what is out of date up to date, through the Dagster jobs, and publish the index."""
    from rag_assets.runner import run_pipeline

    loaded = load_config()
    with _progress_bars(quiet=json_output):
        summary = run_pipeline(loaded, sources=source, stage=stage, rebuild=rebuild)
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


def dev(
    port: Annotated[int, typer.Option(help="Port of the Dagster UI on 127.0.0.1.")] = 3000,
) -> None:
    """Start the Dagster UI and everything local that it needs, the reports included; Ctrl-C stops all of it."""
    from rag_assets.instance import dagster_home
    from rag_core.index.lite_server import lease

    loaded = load_config()
    store = Store(loaded.config.store.root)
    home = dagster_home(store)
    environment = {**os.environ, "DAGSTER_HOME": str(home), "DAGSTER_DISABLE_TELEMETRY": "yes"}
    if loaded.path is not None:
        environment["RAG_CONFIG"] = str(loaded.path)
    index = loaded.config.index
    with lease(store, index) if index.uri is None else nullcontext(index.uri) as uri:
        ERRORS.print(f"configuration {loaded.path}\nstore         {store.root}\nMilvus        {uri}", highlight=False)
        ERRORS.print(f"Dagster UI    http://127.0.0.1:{port}", highlight=False)
        _serve_reports(store, loaded.config.quality.reports_url)
        # `dg dev`, which supersedes `dagster dev`, wants a project of its own layout and a further package.
        quiet = ["-W", "ignore:Function `dev_command` is superseded"]
        command = [
            sys.executable,
            *quiet,
            "-m",
            "dagster",
            "dev",
            "-m",
            "definitions",
            "-h",
            "127.0.0.1",
            "-p",
            str(port),
        ]
        sys.exit(_until_stopped(command, environment))


def _serve_reports(store: Store, address: str) -> None:
    """Serve the report pages in a thread, if their address is one of this machine that is free."""
    from rag_core.reports.serving import report_server

    parts = urlsplit(address)
    if parts.hostname not in ("127.0.0.1", "localhost"):
        return  # somebody else serves them
    try:
        server = report_server(store, port=parts.port or 80)
    except OSError as error:
        ERRORS.print(f"reports       not served: {address} cannot be used ({error.strerror})", highlight=False)
        return
    threading.Thread(target=server.serve_forever, name="reports", daemon=True).start()
    ERRORS.print(f"reports       {address}", highlight=False)


def _until_stopped(command: list[str], environment: dict[str, str]) -> int:
    """Run a command; SIGTERM and Ctrl-C are its to handle, and this process ends after it."""
    # A shell starts background jobs with SIGINT ignored; inherited, it would make Dagster deaf to SIGTERM as well.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    child = subprocess.Popen(command, env=environment)
    # Ctrl-C reaches the child by itself, as a member of the terminal's foreground group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: child.send_signal(signal.SIGINT))
    return child.wait()


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
