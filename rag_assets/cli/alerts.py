"""`rag alerts`: what is wrong now, what was told, and whether messages arrive."""

import logging
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import uuid4

import typer

from rag_assets.cli.output import CONSOLE, print_json, print_json_lines, table
from rag_core.alerts.channels import configured_channels
from rag_core.alerts.history import read_alerts
from rag_core.alerts.model import Channel, DeliveryError, Message
from rag_core.alerts.state import BookState, OpenAlert, load_state
from rag_core.config_loader import load_config
from rag_core.tables.store import Store

app = typer.Typer(help="What is wrong now, and what was told of it.", invoke_without_command=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


@app.callback()
def alerts(
    context: typer.Context,
    history: Annotated[
        int, typer.Option("--history", min=0, help="Instead, the newest N messages that were told.", show_default=False)
    ] = 0,
    json_output: Json = False,
) -> None:
    """Open alerts, as the sensor `alerts` found them; then messages that could not be delivered yet."""
    if context.invoked_subcommand is not None:
        return
    store = Store.of(load_config(check_files=False).config.store)
    if history:
        _show_history(read_alerts(store, history), json_output=json_output)
    else:
        _show_open(load_state(store), json_output=json_output)


@app.command("test")
def test(json_output: Annotated[bool, typer.Option("--json", help="A JSON array.")] = False) -> None:
    """Send a message by every configured channel, and say what became of it."""
    logging.getLogger("rag_core.alerts").setLevel(logging.WARNING)  # the command line shows errors only, else
    channels = configured_channels(load_config(check_files=False).config.alerts)
    results = [_tried(channel, _test_message()) for channel in channels]
    if json_output:
        print_json(results)
    else:
        CONSOLE.print(table("test message", ("channel", "delivered", "said"), (one.values() for one in results)))
    if not all(one["delivered"] for one in results):
        raise typer.Exit(1)


def _test_message() -> Message:
    now = datetime.now(UTC).replace(microsecond=0)
    return Message(
        message_id=uuid4().hex,
        keys=("test",),
        thread_id=uuid4().hex,
        kind="test",
        severity="warning",
        state="firing",
        at=now,
        since=now,
        title="test of rag alerts",
        body="This is a test: nothing is wrong.\n\nWhat to do: nothing.\nMore: docs/operations.md#alerts",
        link="",
    )


def _tried(channel: Channel, message: Message) -> dict[str, Any]:
    try:
        return {"channel": channel.name, "delivered": True, "said": channel.deliver(message)}
    except DeliveryError as error:
        return {"channel": channel.name, "delivered": False, "said": str(error)}


def _show_open(state: BookState, *, json_output: bool) -> None:
    opened = sorted(state.open.values(), key=lambda one: (one.finding.severity, one.since))
    if json_output:
        print_json_lines(_row(one) for one in opened)
        return
    for one in opened:
        CONSOLE.print(_lines(one), highlight=False, markup=False)
    if not opened:
        CONSOLE.print("no open alerts", highlight=False)
    if state.outbox:
        failed = {name: tries.reason for name, tries in state.channels.items()}
        why = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
        CONSOLE.print(
            f"{len(state.outbox):,} messages wait for delivery" + (f" ({why})" if why else ""),
            highlight=False,
            markup=False,
        )


def _row(one: OpenAlert) -> dict[str, Any]:
    finding = one.finding
    return {
        "alert_key": finding.key,
        "kind": finding.kind,
        "severity": finding.severity,
        "since": one.since,
        "told_at": one.told_at,
        "title": finding.title,
        "body": finding.body,
        "link": finding.link,
    }


def _lines(one: OpenAlert) -> str:
    finding = one.finding
    body = "\n".join(f"  {line}" if line else "" for line in finding.body.splitlines())
    link = f"\n  {finding.link}" if finding.link else ""
    return f"{finding.severity}: {finding.title}, since {one.since:%Y-%m-%d %H:%M:%S} UTC\n{body}{link}\n"


def _show_history(rows: list[dict[str, Any]], *, json_output: bool) -> None:
    if json_output:
        print_json_lines(rows)
    elif rows:
        columns = ("at", "state", "severity", "kind", "title")
        CONSOLE.print(table("alerts", columns, ([row[name] for name in columns] for row in rows)))
    else:
        CONSOLE.print("nothing was told yet", highlight=False)
