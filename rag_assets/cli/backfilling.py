"""`rag backfill`: chosen partitions, in packed runs that give way to fresh changes; resumable."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from rag_assets.cli.output import CONSOLE, ERRORS, print_json, print_text, table
from rag_core.backfill.pace import Pace, spoken
from rag_core.backfill.results import Result, counted
from rag_core.backfill.state import Backfill, Settings, list_backfills, load
from rag_core.config_loader import LoadedConfig, load_config
from rag_core.errors import ConfigError
from rag_core.tables.store import Store

if TYPE_CHECKING:
    from rag_assets.backfill_runs import Report
    from rag_core.backfill.choice import Choice

_NAMED = 8


def backfill(
    backfill_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="With --resume: which; default: the newest that has not ended.")
    ] = None,
    source: Annotated[list[str] | None, typer.Option(help="Only this source; may be repeated.")] = None,
    partition: Annotated[
        list[str] | None, typer.Option(help="Only partitions like this, such as 'handbook__0*'; may be repeated.")
    ] = None,
    stage: Annotated[
        str | None,
        typer.Option(help="Only this stage, not those behind it: documents, chunks, embeddings, index_partitions."),
    ] = None,
    stale_only: Annotated[bool, typer.Option("--stale-only", help="Leave out partitions that are up to date.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the runs that would be made, and end.")] = False,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Allow a changed model or chunking to embed everything anew (rag plan).")
    ] = False,
    accept_deletions: Annotated[
        bool, typer.Option("--accept-deletions", help="Believe a source that lost most of its objects.")
    ] = False,
    pause: Annotated[float, typer.Option(min=0, help="Seconds to wait between two runs.")] = 0.0,
    max_objects: Annotated[
        int | None, typer.Option(min=1, help="Objects of one run; default: run.max_objects_per_run.")
    ] = None,
    submit: Annotated[
        bool, typer.Option("--submit", help="Queue the runs for `rag dev` or a daemon, and follow them.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a backfill that was cut off.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="List the backfills, and end.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="End with one JSON object.")] = False,
) -> None:
    """Bring chosen partitions up to date in packed runs that give way to fresh changes; can be resumed."""
    loaded = load_config()
    store = Store.of(loaded.config.store)
    if listed:
        _print_list(store, loaded, json_output=json_output)
        return
    if backfill_id and not resume:
        raise ConfigError(f"what is {backfill_id!r}? An id is for --resume; partitions are chosen by --partition")
    if submit and pause:
        raise ConfigError("--pause is for runs in this process: those of --submit are started by the daemon")
    if resume:
        _work(loaded, load(store, backfill_id or ""), resume=True, json_output=json_output)
        return
    from rag_core.backfill.choice import choose

    settings = Settings(stage, rebuild, accept_deletions, pause, max_objects, submit)
    choice = choose(store, loaded.config, settings, sources=source, patterns=partition or (), stale_only=stale_only)
    if dry_run or not choice.stale:
        _print_choice(loaded, choice, json_output=json_output)
        return
    new = Backfill.new(settings, choice.weights)
    _work(loaded, new, expected_s=choice.expected_s, json_output=json_output)


def _work(
    loaded: LoadedConfig,
    work: Backfill,
    *,
    json_output: bool,
    resume: bool = False,
    expected_s: float | None = None,
) -> None:
    """Work on a backfill, say what came of it, and end with 1 if not all of it is done."""
    from rag_assets.backfill_runs import run_backfill

    ERRORS.print(f"backfill {work.id}: {len(work.weights):,} partitions", highlight=False)
    try:
        with _observer(quiet=json_output) as observer:
            report = run_backfill(loaded, work, observer, resume=resume, expected_s=expected_s)
    except KeyboardInterrupt:
        rest = "its runs stay queued; follow them with" if work.settings.submit else "go on with"
        print_text(ERRORS, f"stopped; {rest} `rag backfill --resume {work.id}`")
        raise
    if json_output:
        print_json(_as_dict(report))
    else:
        _print_report(report)
    for problem in report.problems:
        ERRORS.print(f"[bold red]failed[/] {problem.step} of {problem.partitions}", highlight=False)
        print_text(ERRORS, problem.message)
    if report.problems or any(one.state != "ok" for one in report.results.values()):
        raise typer.Exit(1)


@dataclass
class _Observer:
    """Shows a bar over the partitions if there is a terminal, and messages in any case."""

    bars: Bars | None
    task: TaskID | None = None
    said: str = ""
    step: str = ""
    pace: Pace = field(default_factory=lambda: Pace(0))

    def progress(self, results: Mapping[str, Result], pace: Pace) -> None:
        """Move the bar."""
        self.pace = pace
        if self.bars is None:
            return
        if self.task is None:
            self.task = self.bars.add_task("", total=len(results), speed="")
        done = sum(one.state in ("ok", "held", "failed") for one in results.values())
        rate = pace.objects_per_s
        speed = f"{rate:,.1f} objects/s, " if rate is not None else ""
        self.bars.update(self.task, completed=done, speed=f"{speed}{spoken(pace.eta_s)} left")

    def say(self, message: str) -> None:
        """Print a message, once if it is repeated."""
        if message != self.said:
            (self.bars.console if self.bars is not None else ERRORS).print(message, highlight=False)
        self.said = message

    def listen(self, asset: str, what: str, done: int, total: int) -> None:
        """Show what the run is doing."""
        if self.bars is not None and self.task is not None:
            of = f" of {total:,}" if total else ""
            self.bars.update(self.task, description=f"{asset}: {what} {done:,}{of}")


@contextmanager
def _observer(*, quiet: bool) -> Iterator[_Observer]:
    if quiet or not ERRORS.is_terminal:
        yield _Observer(None)
        return
    from resources.progress import set_listener

    columns = (TextColumn("partitions"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"),
               TimeElapsedColumn(), TextColumn("{task.description}"))  # fmt: skip
    with Bars(*columns, console=ERRORS) as bars:
        observer = _Observer(bars)
        set_listener(observer.listen)
        try:
            yield observer
        finally:
            set_listener(None)


def _print_choice(loaded: LoadedConfig, choice: "Choice", *, json_output: bool) -> None:
    """Show the runs that a choice would make."""
    runs = choice.runs(loaded.config)
    if json_output:
        print_json({"runs": [asdict(run) for run in runs], "expected_s": choice.expected_s})
        return
    if not runs:
        CONSOLE.print("nothing to do", highlight=False)
        return
    columns = ("run", "partitions", "", "objects", "to cut", "to embed", "reused", "to write", "to delete", "seconds")
    rows = [
        (
            number + 1, len(run.partition_keys), _listed(run.partition_keys), run.objects, run.documents_to_cut,
            run.texts_to_embed, run.texts_reused, run.rows_to_write, run.rows_to_delete,
            None if run.expected_s is None else round(run.expected_s, 1),
        )
        for number, run in enumerate(runs)
    ]  # fmt: skip
    CONSOLE.print(table(f"{len(choice.stale):,} partitions in {len(runs):,} runs", columns, rows))
    CONSOLE.print(f"time from measured throughput: {spoken(choice.expected_s)}", highlight=False)


def _listed(keys: tuple[str, ...]) -> str:
    return ", ".join(keys) if len(keys) <= 3 else f"{keys[0]}, ... {keys[-1]}"


def _print_report(report: "Report") -> None:
    counts, summary = counted(report.results), report.summary
    runs = [run for run in report.backfill.runs if run.session == report.backfill.session]
    bad = [one for one in report.results.values() if one.state != "ok"]
    if bad:
        columns = ("partition", "result", "tries", "stage", "failure", "message")
        rows = [(one.partition_key, one.state, one.attempts, one.stage, one.failure, one.message) for one in bad]
        CONSOLE.print(table("partitions that are not done", columns, rows))
    left = sum(report.backfill.weights[one.partition_key] for one in bad)
    CONSOLE.print(
        f"runs        {len(runs):,}, {sum(run.seconds for run in runs):.1f} s\n"
        f"partitions  {counts['ok']:,} done, {counts['failed']:,} failed, {counts['held']:,} held back; "
        f"{left:,} objects left\n"
        f"embeddings  {summary.embedded:,} texts embedded, {summary.reused:,} reused\n"
        f"index       {summary.upserted:,} rows written, {summary.deleted:,} deleted\n"
        f"            {report.seconds:.1f} s in all",
        highlight=False,
    )


def _as_dict(report: "Report") -> dict[str, Any]:
    runs = [run for run in report.backfill.runs if run.session == report.backfill.session]
    names = ("parsed", "rejected", "chunks", "embedded", "reused", "upserted", "deleted", "repaired", "commits")
    return {
        "id": report.backfill.id,
        "runs": len(runs),
        "partitions": counted(report.results),
        "not_done": [asdict(one) for one in report.results.values() if one.state != "ok"],
        **{name: getattr(report.summary, name) for name in names},
        "seconds": round(report.seconds, 2),
    }


def _print_list(store: Store, loaded: LoadedConfig, *, json_output: bool) -> None:
    from rag_core.backfill.results import read_results

    rows = []
    for one in list_backfills(store):
        counts = counted(read_results(store, one, loaded.config.run))
        left = len(one.weights) - counts["ok"]
        rows.append({
            "id": one.id, "created": one.created_at, "stage": one.settings.stage or "all",
            "partitions": len(one.weights), "done": counts["ok"], "left": left, "runs": len(one.runs),
            "ended": one.ended,
        })  # fmt: skip
    if json_output:
        print_json(rows)
    elif rows:
        CONSOLE.print(table("backfills", rows[0], [row.values() for row in rows]))
    else:
        CONSOLE.print("no backfills", highlight=False)
