"""Assembly of the command line, and what turns an error into a sentence and an exit code."""

import logging
import os
import sys
from typing import Annotated

import typer

from rag_assets.cli import (
    alerts,
    backfilling,
    backing_up,
    configure,
    embedding_pods,
    exporting,
    inspecting,
    keys,
    pools,
    publishing,
    receipts,
    reporting,
    running,
    searching,
    serving,
    serving_dev,
    slo,
    testing,
    upgrading,
    verifying,
)
from rag_assets.cli.output import ERRORS, print_text
from rag_core.errors import PermanentError, RagError

EXIT_FAILED = 1
EXIT_PERMANENT = 2
EXIT_TRANSIENT = 75  # os.EX_TEMPFAIL: the same command may succeed later

app = typer.Typer(
    name="rag",
    help="Keep a retrieval index true: bring it up to date, search it, ask it, look inside.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done, 1 failed, 2 wrong input or configuration, 75 try again later.",
)
app.command("run")(running.run)
app.command("dev")(serving_dev.dev)
app.command("search")(searching.search)
app.command("ask")(searching.ask)
app.command("serve")(serving.serve)
app.command("eval")(searching.evaluate)
app.command("plan")(publishing.plan)
app.command("upgrade-check")(upgrading.upgrade_check)
app.command("backfill")(backfilling.backfill)
app.command("publish")(publishing.publish)
app.command("rollback")(publishing.rollback)
app.command("abandon")(publishing.abandon)
app.command("test")(testing.test)
app.command("verify")(verifying.verify)
app.command("receipts")(receipts.receipts)
app.command("report")(reporting.report)
app.command("slo")(slo.slo)
app.command("exporter")(exporting.exporter)
app.command("embedding-pod")(embedding_pods.embedding_pod)
app.command("pools")(pools.pools)
app.command("status")(inspecting.status)
app.command("doctor")(configure.doctor)
app.add_typer(alerts.app, name="alerts")
app.add_typer(backing_up.app, name="backup")
app.add_typer(inspecting.app, name="inspect")
app.add_typer(keys.app, name="keys")
app.add_typer(configure.app, name="config")


@app.callback()
def options(
    config: Annotated[
        str, typer.Option("--config", help="rag.yaml to use; default: RAG_CONFIG, ./rag.yaml, the example.")
    ] = "",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the log of what runs.")] = False,
) -> None:
    """Set what all commands share."""
    if config:
        os.environ["RAG_CONFIG"] = config
    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR, format="%(levelname)s %(name)s: %(message)s")
    os.environ["RAG_VERBOSE"] = "1" if verbose else ""


def main() -> None:
    """Run the command line; errors of ours end as one sentence on stderr."""
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "yes")
    try:
        app()
    except RagError as error:
        ERRORS.print(f"[bold red]rag:[/] {type(error).__name__}", highlight=False)
        print_text(ERRORS, str(error))
        sys.exit(EXIT_PERMANENT if isinstance(error, PermanentError) else EXIT_TRANSIENT)
    except KeyboardInterrupt:
        sys.exit(130)
