"""`rag exporter`: the pipeline's metrics for Prometheus."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from prometheus_client import CollectorRegistry, disable_created_metrics, generate_latest, start_http_server

from rag_assets.cli.output import ERRORS, print_text
from rag_core.config import RagConfig
from rag_core.config_loader import load_config
from rag_core.errors import ConfigError
from rag_core.monitoring.exporter import Exporter
from rag_core.monitoring.group import Group
from rag_core.monitoring.of_store import store_groups
from rag_core.tables.store import Store


def exporter(
    host: Annotated[str | None, typer.Option(help="Address to listen on; default: monitoring.host.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Port; default: monitoring.port. 0: any that is free.")
    ] = None,
    runs: Annotated[
        bool,
        typer.Option("--runs/--no-runs", help="Whether to tell of the Dagster instance's runs, pools and daemons."),
    ] = True,
    once: Annotated[
        bool, typer.Option("--once", help="Print the metrics as they are now and end; exit code 1: some are missing.")
    ] = False,
) -> None:
    """Export metrics of the pipeline for Prometheus: freshness, ingestion, embedding, index, runs, alerts."""
    config = load_config(check_files=False).config
    disable_created_metrics()  # type: ignore[no-untyped-call]
    with _groups(config, with_runs=runs) as groups:
        metrics = Exporter(groups, refresh_s=config.monitoring.refresh_s, stale_after_s=config.monitoring.stale_after_s)
        registry = CollectorRegistry()
        if once:
            metrics.refresh()
            registry.register(metrics)
            typer.echo(generate_latest(registry).decode(), nl=False)
            raise typer.Exit(1 if metrics.failing else 0)
        registry.register(metrics)
        address = (host or config.monitoring.host, config.monitoring.port if port is None else port)
        _serve(metrics, registry, *address)


def _serve(metrics: Exporter, registry: CollectorRegistry, host: str, port: int) -> None:
    """Answer scrapes until a signal asks for the end.

    Raises:
        ConfigError: The address cannot be listened on.
    """
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise ConfigError(
            f"monitoring: cannot listen on {host}:{port} ({error.strerror or error}); give another --host or --port"
        ) from error
    metrics.start()
    print_text(ERRORS, f"metrics at http://{host}:{server.server_port}/metrics; Ctrl-C ends")
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    stopping.wait()
    server.shutdown()
    server.server_close()
    thread.join()
    metrics.stop()


@contextmanager
def _groups(config: RagConfig, *, with_runs: bool) -> Iterator[list[Group]]:
    """Make the groups; the Dagster instance is opened when it is first asked, and may come later than the exporter."""
    store = Store.of(config.store)
    groups = store_groups(store, config)
    if not with_runs:
        yield groups
        return
    import dagster as dg

    from rag_assets.instance import dagster_home, pool_limits
    from rag_assets.run_metrics import RunMetrics

    of_runs = RunMetrics(
        lambda: dg.DagsterInstance.from_config(str(dagster_home(store, config))), sorted(pool_limits(config))
    )
    try:
        yield [*groups, of_runs]
    finally:
        of_runs.close()
