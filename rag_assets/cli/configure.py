"""`rag config` and `rag doctor`."""

from typing import Annotated

import typer

from rag_assets.cli.output import CONSOLE, print_json, table
from rag_core.config_loader import describe, load_config
from rag_core.doctor import run_doctor

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
        for finding in findings:
            colour = _COLOURS[finding.status]
            CONSOLE.print(f"[{colour}]{finding.status:<5}[/]{finding.name:<16}{finding.detail}", highlight=False)
            if finding.status != "ok" and finding.remedy:
                CONSOLE.print(f"{'':21}{finding.remedy}", highlight=False)
    if any(finding.status == "fail" for finding in findings):
        raise typer.Exit(1)
