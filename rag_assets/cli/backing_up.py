"""`rag backup`: snapshots of the tables, their check, and their restoration into an empty store."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from rag_assets.cli.output import CONSOLE, ERRORS, print_json, print_text, table
from rag_core.backup import layout, restoring, taking
from rag_core.caching.invalidation import caches_of
from rag_core.config import RagConfig
from rag_core.config_loader import load_config
from rag_core.errors import ConfigError
from rag_core.stages.common import Progress as Report
from rag_core.tables.store import Store

app = typer.Typer(name="backup", help="Take snapshots of the tables, check them, bring one back.", no_args_is_help=True)

_MIB = 1024 * 1024
_To = Annotated[str, typer.Option("--to", help="Folder or s3://bucket/prefix of the backup; default: backup.to.")]
_From = Annotated[str, typer.Option("--from", help="Folder or s3://bucket/prefix of the backup; default: backup.to.")]
_Snapshot = Annotated[
    str, typer.Option(help="Name of the snapshot, as `rag backup list` shows it; default: the newest.")
]
_Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]


@app.command("take")
def take(to: _To = "", json_output: _Json = False) -> None:
    """Copy the tables as they are now, while runs go on; then remove snapshots beyond `backup.keep`."""
    config = load_config().config
    store, backup = _places(config, to)
    now = datetime.now(UTC)
    with _bar(quiet=json_output) as report:
        taken = taking.take(store, backup, now=now, on_progress=report)
    gone, removed = taking.give_up_old(backup, keep=config.backup.keep, now=now)
    snapshot = taken.snapshot
    if json_output:
        print_json(
            {
                "snapshot": snapshot.name,
                "backup": backup.root,
                "rows": snapshot.rows,
                "copied_files": taken.copied,
                "copied_bytes": taken.copied_bytes,
                "removed_snapshots": gone,
                "removed_blobs": removed,
            }
        )
        return
    CONSOLE.print(
        f"snapshot {snapshot.name}: {len(snapshot.tables)} tables, {sum(snapshot.rows.values()):,} rows, "
        f"{sum(snapshot.files.values()) / _MIB:,.1f} MiB, of which {taken.copied_bytes / _MIB:,.1f} MiB in "
        f"{taken.copied:,} files were new",
        highlight=False,
        soft_wrap=True,
    )
    if gone:
        CONSOLE.print(f"removed: {', '.join(gone)}, {removed:,} files", highlight=False, soft_wrap=True)


@app.command("list")
def list_snapshots(of: _From = "", json_output: _Json = False) -> None:
    """List the snapshots of a backup, the oldest first."""
    _, backup = _places(load_config().config, of)
    found = [layout.read_snapshot(backup, name) for name in layout.snapshot_names(backup)]
    if json_output:
        print_json({one.name: {"created_at": one.created_at, "rows": one.rows} for one in found})
        return
    columns = ("snapshot", "documents", "chunks", "rows in all", "MiB")
    rows = [
        (one.name, one.rows.get("documents", 0), one.rows.get("chunks", 0), sum(one.rows.values()),
         round(sum(one.files.values()) / _MIB, 1))
        for one in found
    ]  # fmt: skip
    CONSOLE.print(table(f"Snapshots in {backup.root}", columns, rows))


@app.command("check")
def check(of: _From = "", snapshot: _Snapshot = "") -> None:
    """Read every file of a snapshot and compare it with its digest; exit code 1 if one is missing or damaged."""
    _, backup = _places(load_config().config, of)
    wanted = layout.read_snapshot(backup, snapshot)
    with _bar() as report:
        problems = restoring.check(backup, wanted, on_progress=report)
    for problem in problems:
        print_text(ERRORS, problem)
    if problems:
        print_text(ERRORS, f"snapshot {wanted.name} cannot be restored whole; take another with: rag backup take")
        raise typer.Exit(1)
    CONSOLE.print(f"snapshot {wanted.name}: {len(wanted.files):,} files are as they were written", highlight=False)


@app.command("restore")
def restore(of: _From = "", snapshot: _Snapshot = "") -> None:
    """Write a snapshot's tables into the store of the configuration, which must be empty; then: rag run."""
    config = load_config().config
    store, backup = _places(config, of)
    wanted = layout.read_snapshot(backup, snapshot)
    with _bar() as report:
        restoring.restore(backup, wanted, store, on_progress=report)
    CONSOLE.print(
        f"restored {wanted.name}: {len(wanted.tables)} tables, {sum(wanted.rows.values()):,} rows, verified",
        highlight=False,
        soft_wrap=True,
    )
    if (caches := caches_of(config, store)) is not None:
        print_text(CONSOLE, f"Redis forgot {caches.forget_everything():,} keys of the store as it was before")
    print_text(
        CONSOLE,
        "Now: rag run. It compares the sources with the tables, writes Milvus from the tables without calling the "
        "model, and publishes.",
    )


def _places(config: RagConfig, given: str) -> tuple[Store, Store]:
    remote = "://" in given
    root = given if remote else str(Path(given).expanduser().resolve()) if given else config.backup.to
    if not root:
        raise ConfigError("backup.to: no place for backups; set it, or name one on the command line")
    store = Store.of(config.store)
    return store, layout.backup_store(store, root)


@contextmanager
def _bar(*, quiet: bool = False) -> Iterator[Report]:
    """Show a bar on a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=ERRORS, disable=quiet or not ERRORS.is_terminal, transient=True) as bars:
        tasks = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done)

        yield report
