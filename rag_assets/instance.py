"""The local Dagster instance: its home is in the store, so that runs and their history stay with the data."""

import os
import socket
from pathlib import Path

import dagster as dg
import psutil

from rag_core.tables.store import Store

PROCESS_TAG = "rag/process"

_DAGSTER_YAML = """\
# Written by rag on first use; yours to change. https://docs.dagster.io/deployment/oss/dagster-yaml
telemetry:
  enabled: false
nux:
  # No pop-up that asks for an e-mail address.
  enabled: false
concurrency:
  pools:
    # Milvus Lite takes one writer at a time, and one embedding worker fills the machine.
    default_limit: 1
    granularity: op
run_monitoring:
  # A run whose process was killed is marked as failed, and gives its places in the pools back.
  enabled: true
  poll_interval_seconds: 20
  free_slots_after_run_end_seconds: 20
"""


def dagster_home(store: Store) -> Path:
    """Return DAGSTER_HOME: the environment's, else `dagster/` in the store, made with telemetry off."""
    configured = os.environ.get("DAGSTER_HOME")
    if configured:
        return Path(configured)
    home = store.local_path("dagster")
    home.mkdir(parents=True, exist_ok=True)
    settings = home / "dagster.yaml"
    if not settings.exists():
        settings.write_text(_DAGSTER_YAML)
    return home


def process_tag() -> str:
    """Name this process so that it cannot be taken for a later one with the same number: host, number, start time."""
    return _tag(psutil.Process())


def fail_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark runs of this command line as failed whose process is gone, and free the places they hold in pools.

    A killed process leaves its run as `STARTED` for ever; its place in a pool of one would block every run after it.

    Returns:
        Ids of the runs that were closed.
    """
    started = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING])
    closed = []
    for run in instance.get_runs(started):
        tag = run.tags.get(PROCESS_TAG)
        if tag is None or not tag.startswith(f"{socket.gethostname()}:") or _is_alive(tag):
            continue
        instance.report_run_failed(
            run, message="The process of this run is gone (killed, or the machine was restarted)."
        )
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        closed.append(run.run_id)
    return closed


def _is_alive(tag: str) -> bool:
    try:
        return _tag(psutil.Process(int(tag.split(":")[1]))) == tag
    except psutil.NoSuchProcess:
        return False


def _tag(process: psutil.Process) -> str:
    return f"{socket.gethostname()}:{process.pid}:{process.create_time():.2f}"
