"""`rag dev`: the platform on one machine, with everything local that it needs."""

import os
import socket
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from rag_assets.cli.output import ERRORS, print_text
from rag_core.config_loader import load_config
from rag_core.embedding import resident
from rag_core.errors import ConfigError, TransientError
from rag_core.tables.store import Store

if TYPE_CHECKING:
    from rag_assets.launcher import WarmRunLauncher
    from rag_core.config import RagConfig


def dev(
    port: Annotated[int, typer.Option(help="Port of the Dagster UI on 127.0.0.1.")] = 3000,
    questions: Annotated[bool, typer.Option("--serve/--no-serve", help="Whether to serve questions as well.")] = True,
) -> None:
    """Start the Dagster UI, its daemon, the page to ask on and everything local; Ctrl-C stops all of it.

    Sources are watched: what changes in them is indexed by itself.
    """
    import dagster as dg

    from rag_assets.cli.dev_runs import RunWatcher, end_runs
    from rag_assets.cli.dev_services import Services
    from rag_assets.cli.dev_serving import ServiceProcess
    from rag_assets.instance import dagster_home, fail_dead_runs, set_pool_limits
    from rag_assets.launcher import WarmRunLauncher
    from rag_assets.launcher.files import ZygoteFiles, held_lease
    from rag_core.embedding.manifest import remove_manifest
    from rag_core.index.lite_server import lease

    loaded = load_config()
    _check_port(port)
    store = Store.of(loaded.config.store)
    home = dagster_home(store, loaded.config)
    os.environ |= {"DAGSTER_HOME": str(home), "DAGSTER_DISABLE_TELEMETRY": "yes"}
    if loaded.path is not None:
        os.environ["RAG_CONFIG"] = str(loaded.path)
    index, ui = loaded.config.index, f"http://127.0.0.1:{port}"
    with ExitStack() as stack:
        uri = stack.enter_context(lease(store, index)) if index.uri is None else index.uri
        stack.enter_context(held_lease(ZygoteFiles(home)))
        instance = stack.enter_context(dg.DagsterInstance.from_config(str(home)))
        set_pool_limits(instance, loaded.config)
        for run_id in fail_dead_runs(instance):
            remove_manifest(store, run_id)
        _say(f"configuration {loaded.path}\nstore         {store.root}\nMilvus        {uri}\nDagster UI    {ui}")
        _serve_reports(store, loaded.config.quality.reports_url)
        serving = loaded.config.serving
        service = ServiceProcess((serving.host, serving.port), os.environ, drain_s=serving.drain_s, say=_say)
        if questions and service.start():
            stack.callback(service.stop)
        launcher = instance.run_launcher
        warm = launcher if isinstance(launcher, WarmRunLauncher) else None
        warming = threading.Thread(target=_warm_up, args=(warm, loaded.config, store), name="warm-up", daemon=True)
        warming.start()
        _say(_hint(loaded.config, home, warm=warm is not None))
        services = Services(_dagster_command(port), os.environ, _say)
        watcher = RunWatcher(instance, ui, _say)

        def each_turn() -> None:
            service.look()
            watcher.look()

        services.run(each_turn)
        if warm is not None:
            warm.client.stop()
        end_runs(instance, services.hurry, _say)
        resident.stop(store)
        watcher.tell()


def _say(line: str) -> None:
    print_text(ERRORS, line)


def _check_port(port: int) -> None:
    """Say now what Dagster would say again and again."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigError(f"port {port} of 127.0.0.1 is in use; choose another: rag dev --port N") from error


def _dagster_command(port: int) -> list[str]:
    # `dg dev`, which supersedes `dagster dev`, wants a project of its own layout and a further package.
    quiet = ["-W", "ignore:Function `dev_command` is superseded"]
    level = "info" if os.environ.get("RAG_VERBOSE") else "warning"
    # fmt: off
    return [sys.executable, *quiet, "-m", "dagster", "dev", "-m", "definitions",
            "-h", "127.0.0.1", "-p", str(port), "--log-level", level]
    # fmt: on


def _warm_up(launcher: "WarmRunLauncher | None", config: "RagConfig", store: Store) -> None:
    """Have a zygote and the embedding worker ready before the first change; without them, runs start all the same."""
    try:
        if launcher is not None:
            launcher.client.warm_up()
    except (TransientError, OSError) as error:
        _say(f"Runs start in new processes, which takes some seconds longer: {error}")
    if config.automation.enabled:
        resident.prestart(store, config.embedding)


def _hint(config: "RagConfig", home: Path, *, warm: bool) -> str:
    """Say what goes on by itself, and what to try."""
    lines = []
    if not warm:
        lines.append(
            f"{home / 'dagster.yaml'} was changed and has no WarmRunLauncher: runs start in new processes, which takes "
            "some seconds longer. Remove the file to have the default written again."
        )
    if config.automation.enabled:
        names = ", ".join(source.name for source in config.sources)
        lines.append(f"watching      {names}: every {config.freshness.tick_s} s; what changes is indexed by itself")
    else:
        lines.append("watching      nothing: automation.enabled is false; start sensors and schedules in the UI")
    folder = next((source.root for source in config.sources if source.kind == "files"), None)
    if folder is not None and config.automation.enabled:
        lines.append(f'try           drop a file into {_shown(Path(folder))} and ask about it: rag ask "..."')
    return "\n".join(lines)


def _shown(folder: Path) -> str:
    here = Path.cwd()
    return str(folder.relative_to(here)) if folder.is_relative_to(here) else str(folder)


def _serve_reports(store: Store, address: str) -> None:
    """Serve the report pages in a thread, if their address is one of this machine that is free."""
    from rag_core.reports.serving import report_server

    parts = urlsplit(address)
    if parts.hostname not in ("127.0.0.1", "localhost"):
        return  # somebody else serves them
    try:
        server = report_server(store, port=parts.port or 80)
    except OSError as error:
        _say(f"reports       not served: {address} cannot be used ({error.strerror})")
        return
    threading.Thread(target=server.serve_forever, name="reports", daemon=True).start()
    _say(f"reports       {address}")
