"""The job `build_partitions`: any set of partitions of a source, brought up to date in one run.

Dagster names the partitions of an asset run by the two ends of a range, and the run succeeds or fails as a whole. This
job takes any set, and each partition has a result of its own: those that fail do not stop the others, and what became
of each is kept in the table `passes`. It does the work of the four partitioned assets, in one process, and logs their
materializations together at its end.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import dagster as dg
from pydantic import Field

from rag_assets.materialize import RETRY, markdown_table
from rag_assets.partition_reports import StageReport, stage_report
from rag_assets.stage_work import (
    Group,
    StageDone,
    chunks_group,
    documents_group,
    embeddings_group,
    in_groups,
    index_group,
    is_tried_again,
)
from rag_assets.stages import EMBEDDING_POOL, MILVUS_POOL, code_versions
from rag_core.config import RagConfig
from rag_core.errors import PermanentError, RagError
from rag_core.faults import crash_point
from rag_core.freshness.passes import Outcome, Pass
from rag_core.freshness.passes import record_passes as append_passes
from rag_core.packing import Pack
from rag_core.partitions import keys_by_source, source_of
from resources.embedding import EmbeddingLauncherResource
from resources.engine import EngineResource
from resources.milvus import MilvusResource
from resources.platform import PlatformResource

PACKED_JOB = "build_partitions"

HANDOVER = "handover"
"""Resource by which the steps of a packed run, which are in one process, hand over objects."""

SOURCE_TAG = "rag/source"
REASON_TAG = "rag/reason"
"""Why a run was asked for: one of `PRIORITIES`."""
PARTITIONS_TAG = "rag/partitions"
"""The run's partitions, for people; what counts is the run's configuration."""

PRIORITIES: Final[Mapping[str, int]] = {"change": 10, "manual": 5, "reconcile": -5, "backfill": -10}
"""Places in Dagster's queue by reason: changes do not wait for backfills."""

FAILED_PARTITIONS = "failed_partitions"
"""Metadata of a failed run: a list of {partition, stage, failure, message}."""

_NAMED = 8  # partitions in a tag or message; of more their number


class PackConfig(dg.Config):
    """Which partitions a run brings up to date."""

    partitions: list[str] = Field(description="Partition keys of one source, such as handbook__03; in any order.")


@dataclass(frozen=True)
class _NotDone:
    """Why a partition was not brought up to date: at which stage, of which class."""

    stage: str
    outcome: Outcome
    failure: str
    message: str


@dataclass(frozen=True)
class _Progress:
    """What is handed from step to step."""

    partition_keys: tuple[str, ...]
    started: float
    reports: Mapping[str, StageReport] = field(default_factory=dict)
    not_done: Mapping[str, _NotDone] = field(default_factory=dict)
    groups: tuple[Group, ...] = ()

    @property
    def alive(self) -> tuple[str, ...]:
        """Partitions that did not fail; those that are held back go on with the rows they have."""
        failed = {key for key, why in self.not_done.items() if why.outcome == "failed"}
        return tuple(key for key in self.partition_keys if key not in failed)

    def after(self, stage: str, done: StageDone) -> "_Progress":
        """Add what a stage did."""
        not_done = dict(self.not_done)
        for key, error in done.failures.items():
            permanent = isinstance(error, PermanentError)
            not_done[key] = _NotDone(stage, "failed", "permanent" if permanent else "transient", _said(error))
        for key, reasons in done.held.items():
            not_done.setdefault(key, _NotDone(stage, "held", "permanent", "; ".join(reasons)))
        reports = {**self.reports, stage: stage_report(done.groups)} if done.groups else self.reports
        return replace(self, reports=reports, not_done=not_done, groups=(*self.groups, *done.groups))


def build_packed_job(config: RagConfig) -> dg.JobDefinition:
    """Make the job for a configuration."""
    versions = code_versions(config)
    # The steps of a run are in one process, and hand over objects.
    step = partial(dg.op, retry_policy=RETRY, out=dg.Out(io_manager_key=HANDOVER))

    @step()
    def refresh_documents(
        context: dg.OpExecutionContext, config: PackConfig, platform: PlatformResource, engine: EngineResource
    ) -> _Progress:
        """List the source, and bring the documents of the partitions up to date."""
        progress = _Progress(_checked(platform.config, config.partitions), time.time())
        return _stage(context, progress, "documents", lambda keys: documents_group(context, keys, platform, engine))

    @step()
    def refresh_chunks(
        context: dg.OpExecutionContext, progress: _Progress, platform: PlatformResource, engine: EngineResource
    ) -> _Progress:
        """Cut the documents that changed."""
        done = _stage(
            context,
            progress,
            "chunks",
            lambda keys: chunks_group(context, platform.slice("documents", keys), platform, engine),
        )
        engine.release()  # embedding wants the memory
        return done

    @step(pool=EMBEDDING_POOL)
    def refresh_embeddings(
        context: dg.OpExecutionContext,
        progress: _Progress,
        platform: PlatformResource,
        embedding_launcher: EmbeddingLauncherResource,
    ) -> _Progress:
        """Embed the texts that have no vector."""
        return _stage(
            context,
            progress,
            "embeddings",
            lambda keys: embeddings_group(context, platform.slice("chunks", keys), platform, embedding_launcher),
        )

    @step(pool=MILVUS_POOL)
    def refresh_index(
        context: dg.OpExecutionContext, progress: _Progress, platform: PlatformResource, milvus: MilvusResource
    ) -> _Progress:
        """Bring Milvus and the ledger up to date, and verify both."""
        try:
            with milvus.client() as client:
                return _stage(
                    context,
                    progress,
                    "index_partitions",
                    lambda keys: index_group(
                        context, platform.slice("chunks", keys), platform.slice("embeddings", keys), platform, client
                    ),
                )
        except RagError as error:  # Milvus does not answer at all
            if is_tried_again(context, error):
                raise
            return progress.after("index_partitions", StageDone((), dict.fromkeys(progress.alive, error)))

    @dg.op(retry_policy=RETRY)
    def record_passes(context: dg.OpExecutionContext, progress: _Progress, platform: PlatformResource) -> None:
        """Keep what became of each partition, and log the materializations of the assets."""
        crash_point("passes.before_commit")
        passes = _passes(context, progress)
        _record(context, platform, passes)
        for table, report in progress.reports.items():
            for event in report.materializations(versions[table]):
                context.log_event(event)
        _end(context, passes)

    @dg.job(
        name=PACKED_JOB,
        executor_def=dg.in_process_executor,
        description="Documents to index, for any set of partitions of a source. What is unchanged is skipped.",
    )
    def build_partitions() -> None:
        record_passes(refresh_index(refresh_embeddings(refresh_chunks(refresh_documents()))))

    return build_partitions


def run_config(partition_keys: Sequence[str]) -> dict[str, Any]:
    """Return the configuration of a run for these partitions."""
    return {"ops": {"refresh_documents": {"config": {"partitions": list(partition_keys)}}}}


def partitions_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the partitions that a run's configuration names; empty if it is not of this job."""
    keys = config.get("ops", {}).get("refresh_documents", {}).get("config", {}).get("partitions", [])
    return tuple(keys)


def run_tags(pack: Pack, reason: str, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the tags of a run: source, reason, its place in the queue, and the partitions for people to read."""
    keys = pack.partition_keys
    named = ", ".join(keys) if len(keys) <= _NAMED else f"{keys[0]}, ... {keys[-1]} ({len(keys):,})"
    return {
        SOURCE_TAG: source_of(keys[0]),
        REASON_TAG: reason,
        PARTITIONS_TAG: named,
        "dagster/priority": str(PRIORITIES[reason]),
        **(extra or {}),
    }


def _checked(config: RagConfig, partition_keys: Sequence[str]) -> tuple[str, ...]:
    """Return the keys sorted, each once.

    Raises:
        Failure: They are not partitions of one source.
    """
    try:
        sources = keys_by_source(config, sorted(set(partition_keys)))
    except KeyError as error:
        raise dg.Failure(description=str(error.args[0]), allow_retries=False) from error
    if len(sources) != 1:
        named = ", ".join(sources) or "none"
        raise dg.Failure(description=f"expected partitions of one source, not of {named}", allow_retries=False)
    return tuple(next(iter(sources.values())))


def _stage(
    context: dg.OpExecutionContext, progress: _Progress, stage: str, work: Callable[[tuple[str, ...]], Group]
) -> _Progress:
    return progress.after(stage, in_groups(context, progress.alive, work)) if progress.alive else progress


def _said(error: Exception) -> str:
    """Say what failed; of what nobody foresaw also its type."""
    return str(error) if isinstance(error, RagError) else f"{type(error).__name__}: {error}"


def _passes(context: dg.OpExecutionContext, progress: _Progress) -> list[Pass]:
    of_documents = {key: one for one in progress.groups if one.listed_at is not None for key in one.partition_keys}
    started = datetime.fromtimestamp(progress.started, UTC)
    indexed = {
        key: group.finished_at
        for group in progress.groups
        if group.lanes[-1].slice.table == "index_partitions"
        for key in group.partition_keys
    }
    passes = []
    for key in progress.partition_keys:
        why = progress.not_done.get(key)
        listed = of_documents.get(key)
        counts = listed.lanes[-1].output.counts.get(key) if listed is not None else None
        passes.append(
            Pass(
                partition_key=key,
                reason=context.run.tags.get(REASON_TAG, "manual"),
                listed_at=listed.listed_at if listed is not None and listed.listed_at else started,
                verified_at=indexed.get(key) if why is None else None,
                outcome=why.outcome if why else "ok",
                stage=why.stage if why else "",
                failure=why.failure if why else "",
                message=why.message if why else "",
                objects=counts.new + counts.changed + counts.deleted if counts is not None else 0,
                seconds=time.time() - progress.started,
            )
        )
    return passes


def _record(context: dg.OpExecutionContext, platform: PlatformResource, passes: Sequence[Pass]) -> None:
    append_passes(platform.store, passes, run_id=context.run.run_id)
    ok = sum(one.outcome == "ok" for one in passes)
    context.log.info(f"{ok:,} of {len(passes):,} partitions are up to date")


def _end(context: dg.OpExecutionContext, passes: Sequence[Pass]) -> None:
    """Fail the run if a partition is not up to date, and name it."""
    rows = [
        {"partition": one.partition_key, "stage": one.stage, "failure": one.failure, "message": one.message}
        for one in passes
        if one.outcome == "failed"
    ]
    held = [one.partition_key for one in passes if one.outcome == "held"]
    if held:
        context.log.warning(f"held back, because of what they are made from: {', '.join(held)}")
    if not rows:
        return
    columns = ("partition", "stage", "failure", "message")
    listed = "\n".join(f"- {row['partition']}, {row['stage']}, {row['failure']}: {row['message']}" for row in rows)
    raise dg.Failure(
        description=f"{len(rows):,} of {len(passes):,} partitions failed, the others are done:\n{listed}",
        metadata={
            FAILED_PARTITIONS: dg.MetadataValue.json(rows),
            "results": dg.MetadataValue.md(markdown_table(columns, rows)),
        },
        allow_retries=False,
    )
