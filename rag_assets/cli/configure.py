"""`rag config` and `rag doctor`."""

from typing import Annotated

import typer
from rich.markup import escape

from rag_assets.cli.output import CONSOLE, print_json, table
from rag_core.config_loader import describe, load_config
from rag_core.doctor.run import run_doctor

app = typer.Typer(no_args_is_help=True, help="The configuration.")

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@app.command("show")
def show(json_output: Annotated[bool, typer.Option("--json", help="One JSON object a key.")] = False) -> None:
    """Print the effective configuration, and where each value came from."""
    loaded = load_config()
    rows = describe(loaded)
    if json_output:
        print_json({key: {"value": value, "origin": origin} for key, value, origin in rows})
    else:
        CONSOLE.print(table(f"configuration {loaded.path}", ("key", "value", "from"), rows))


def doctor(json_output: Annotated[bool, typer.Option("--json", help="A JSON array of findings.")] = False) -> None:
    """Say what is missing on this machine, and how to get it."""
    findings = run_doctor(load_config(check_files=False))
    if json_output:
        print_json([{"name": f.name, "status": f.status, "detail": f.detail, "remedy": f.remedy} for f in findings])
    else:
        width = max(len(finding.name) for finding in findings) + 2
        for finding in findings:
            colour = _COLOURS[finding.status]
            lines = (
                [finding.detail] if finding.status == "ok" or not finding.remedy else [finding.detail, finding.remedy]
            )
            detail = f"\n{'':{5 + width}}".join(map(escape, lines))
            CONSOLE.print(
                f"[{colour}]{finding.status:<5}[/]{escape(finding.name):<{width}}{detail}",
                highlight=False,
                soft_wrap=True,
            )
    if any(finding.status == "fail" for finding in findings):
        raise typer.Exit(1)
