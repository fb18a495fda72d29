"""Upkeep: the jobs `maintain_tables` (files of tables), `retention` (all that rag.yaml does not keep any longer) and
`back_up` (a snapshot of the tables).
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from rag_assets.materialize import RETRY, failures_by_class
from rag_assets.stages import MILVUS_POOL
from rag_core.backup.layout import backup_store
from rag_core.backup.taking import give_up_old, take
from rag_core.errors import ConfigError
from rag_core.retention.leftovers import clear_leftovers
from rag_core.retention.rows import remove_expired
from rag_core.stages.publication import generations
from rag_core.stages.retention import collect
from rag_core.tables.maintenance import maintain
from resources.milvus import MilvusResource
from resources.platform import PlatformResource
from resources.progress import progress_of

RETENTION_JOB = "retention"
BACKUP_JOB = "back_up"

_ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
_UNENDED = [status for status in dg.DagsterRunStatus if status not in _ENDED]


@dg.op(retry_policy=RETRY, out=dg.Out(dg.Nothing), ins={"before": dg.In(dg.Nothing)})
def compact_and_vacuum(context: dg.OpExecutionContext, platform: PlatformResource) -> None:
    """Compact small files, write checkpoints, and remove files that no kept version names."""
    done: dict[str, int] = {}
    for result in maintain(platform.store):
        context.log.info(
            f"{result.table}: {result.files_before} files became {result.files_after}, {result.vacuumed} removed"
        )
        done[f"{result.table}_files_removed"] = result.vacuumed
    context.add_output_metadata(_shown(done))


@dg.op(retry_policy=RETRY, pool=MILVUS_POOL, out=dg.Out(dg.Nothing))
def remove_collections(context: dg.OpExecutionContext, platform: PlatformResource, milvus: MilvusResource) -> None:
    """Remove collections that neither what is served, nor rag.yaml, nor a rollback needs, with their rows."""
    with failures_by_class(), milvus.client() as client:
        known = generations(platform.store, platform.config)
        removed = collect(platform.store, known, client, run_id=context.run.run_id)
    context.add_output_metadata({"removed_collections": ", ".join(removed) or "none"})


@dg.op(retry_policy=RETRY, out=dg.Out(dg.Nothing), ins={"before": dg.In(dg.Nothing)})
def remove_old_rows(context: dg.OpExecutionContext, platform: PlatformResource) -> None:
    """Remove rows that are older than `retention` keeps them, and that nothing needs."""
    done: dict[str, int] = {}
    with failures_by_class():
        for one in remove_expired(platform.store, platform.config, now=datetime.now(UTC), run_id=context.run.run_id):
            context.log.info(f"{one.table}: {one.rows:,} rows removed")
            done[f"{one.table}_rows_removed"] = one.rows
    context.add_output_metadata(_shown(done))


@dg.op(retry_policy=RETRY, out=dg.Out(dg.Nothing), ins={"before": dg.In(dg.Nothing)})
def remove_leftovers(context: dg.OpExecutionContext, platform: PlatformResource) -> None:
    """Remove work files of runs that died, and pages whose rows are gone."""
    alive = {run.run_id for run in context.instance.get_runs(dg.RunsFilter(statuses=_UNENDED))}
    done: dict[str, int] = {}
    for one in clear_leftovers(platform.store, platform.config, now=datetime.now(UTC), alive=alive):
        for path in one.paths:
            context.log.info(f"removed {path}")
        done[f"{one.folder}_removed"] = len(one.paths)
    context.add_output_metadata(_shown(done))


@dg.job(
    executor_def=dg.in_process_executor,
    description="Upkeep of the Delta tables: compaction, checkpoints, vacuum. Safe beside running jobs.",
)
def maintain_tables() -> None:
    """Upkeep of the Delta tables."""
    compact_and_vacuum()


@dg.job(
    name=RETENTION_JOB,
    executor_def=dg.in_process_executor,
    description="Remove what rag.yaml does not keep any longer: collections, rows, work files, pages, files of old "
    "versions. Safe beside running jobs; nothing that is needed goes.",
)
def retention() -> None:
    """Remove what is not kept any longer."""
    compact_and_vacuum(remove_leftovers(remove_old_rows(remove_collections())))


@dg.op(retry_policy=RETRY, out=dg.Out(dg.Nothing))
def take_snapshot(context: dg.OpExecutionContext, platform: PlatformResource) -> None:
    """Copy the tables to `backup.to`, and remove snapshots beyond `backup.keep`."""
    config, now = platform.config, datetime.now(UTC)
    with failures_by_class():
        if config.backup.to is None:
            raise ConfigError("backup.to: no place for backups is configured")
        backup = backup_store(platform.store, config.backup.to)
        taken = take(platform.store, backup, now=now, on_progress=progress_of(context, BACKUP_JOB))
        gone, _ = give_up_old(backup, keep=config.backup.keep, now=now)
    context.add_output_metadata(
        {
            "snapshot": taken.snapshot.name,
            "rows": sum(taken.snapshot.rows.values()),
            "size_bytes": sum(taken.snapshot.files.values()),
            "copied_bytes": taken.copied_bytes,
            "copied_files": taken.copied,
            "removed_snapshots": len(gone),
        }
    )


@dg.job(
    name=BACKUP_JOB,
    executor_def=dg.in_process_executor,
    description="Take a snapshot of the tables to `backup.to`. Safe beside running jobs.",
)
def back_up() -> None:
    """Take a snapshot of the tables."""
    take_snapshot()


def _shown(figures: Mapping[str, int]) -> dict[str, Any]:
    """Return figures as metadata; names of folders become names of metadata."""
    return {name.replace("/", "_"): figure for name, figure in figures.items()}
