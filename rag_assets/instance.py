"""The local Dagster instance: its home is in the store, so that runs and their history stay with the data."""

import os
from pathlib import Path

import dagster as dg

from rag_assets.instance_settings import write_settings
from rag_assets.processes import PROCESS_TAG, is_alive, is_here, process_tag
from rag_core.config import RagConfig
from rag_core.tables.store import Store

__all__ = ["PROCESS_TAG", "dagster_home", "fail_dead_runs", "pool_limits", "process_tag", "set_pool_limits"]

_SERVER_WRITERS = 8  # a Milvus server takes writers at once; more would only queue there


def dagster_home(store: Store, config: RagConfig | None = None) -> Path:
    """Return DAGSTER_HOME: the environment's, else `dagster/` in the store with a `dagster.yaml` that fits.

    Args:
        store: The store.
        config: What `dagster.yaml` follows as long as nobody changed it; without, one that is there is left as it is.
    """
    configured = os.environ.get("DAGSTER_HOME")
    if configured:
        return Path(configured)
    home = store.local_path("dagster")
    home.mkdir(parents=True, exist_ok=True)
    write_settings(home, config.run if config is not None else None)
    return home


def pool_limits(config: RagConfig) -> dict[str, int]:
    """Return how many steps of each pool may run at once, over all runs."""
    return {
        "embedding": config.embedding.workers or max(1, _gpu_count()),
        # Milvus Lite takes one writer at a time.
        "milvus_writes": 1 if config.index.uri is None else _SERVER_WRITERS,
    }


def set_pool_limits(instance: dg.DagsterInstance, config: RagConfig) -> None:
    """Bring the limits of the pools to what the configuration says; one that is already so is not written."""
    storage = instance.event_log_storage
    if not storage.supports_global_concurrency_limits:
        return
    known = {limit.name: limit.limit for limit in storage.get_pool_limits() if not limit.from_default}
    for pool, limit in pool_limits(config).items():
        if known.get(pool) != limit:
            storage.set_concurrency_slots(pool, limit)


def fail_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark runs as failed whose process was on this machine and is gone, and free the places they hold in pools.

    A killed process leaves its run as `STARTED` for ever; its place in a pool of one would block every run after it.

    Returns:
        Ids of the runs that were closed.
    """
    # One that was made and not begun is as dead: its process was killed between the two.
    begun = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.NOT_STARTED]
    closed = []
    for run in instance.get_runs(dg.RunsFilter(statuses=begun)):
        tag = run.tags.get(PROCESS_TAG)
        if tag is None or not is_here(tag) or is_alive(tag):
            continue
        instance.report_run_failed(
            run, message="The process of this run is gone (killed, or the machine was restarted)."
        )
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        closed.append(run.run_id)
    return closed


def _gpu_count() -> int:
    """Count the GPUs that this process may use, without loading torch, which takes seconds."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip() not in ("", "-1")])
    return len([device for device in Path("/dev").glob("nvidia*") if device.name.removeprefix("nvidia").isdigit()])
