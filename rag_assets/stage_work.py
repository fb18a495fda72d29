"""What each stage does to some partitions, for both ways to start it: as an asset, and in a packed run.

Each function makes the change of a pure function of `rag_core.stages` and commits it, for the served generation first
and for the one that rag.yaml asks for after it. A group is done as a whole or not at all; `in_groups` makes several
groups where some partitions fail.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from rag_assets.deletions import deletions_metadata
from rag_assets.materialize import RETRY, Committed, commit_output
from rag_core.embedding.manifest import remove_manifest
from rag_core.errors import PermanentError, RagError
from rag_core.generation import Generation
from rag_core.index.client import IndexClient
from rag_core.isolation import isolated
from rag_core.quality.gate import Gate, gate
from rag_core.stages.chunks import chunks_change
from rag_core.stages.common import count_by_partition
from rag_core.stages.documents import documents_change
from rag_core.stages.embeddings import embeddings_change, plan_embeddings
from rag_core.stages.index import IndexTables, index_change
from rag_core.stages.kept import remove_from_kept
from rag_core.stages.publication import Generations, generations
from rag_core.stages.rebuild import refusal
from rag_core.stages.retirement import retire
from rag_core.tables.delta import TableSlice
from resources.embedding import EmbeddingLauncherResource
from resources.engine import EngineResource
from resources.platform import PlatformResource
from resources.progress import progress_of

NOT_BUILT = "not_built"
"""Metadata of `embeddings`: why the index that rag.yaml asks for was left as it is."""

REBUILD_TAG = "rag/rebuild"
"""Set to `allow` on a run, it lets a changed setting embed everything anew."""

ACCEPT_DELETIONS_TAG = "rag/accept_deletions"
"""Set to `allow` on a run, it lets most of a source vanish at once."""


@dataclass(frozen=True)
class Group:
    """Partitions that a stage did together.

    Attributes:
        partition_keys: Which; those that are held back included.
        lanes: What was committed of each lane; the last is that of the generation which rag.yaml asks for.
        held: Failed blocking checks by partition, of those that were left alone because of them.
        extra: Further metadata of the stage.
        listed_at: When the listing of the source began; only of `documents`.
        finished_at: When all was committed; of `index_partitions`, when it had been verified as searchable.
    """

    partition_keys: tuple[str, ...]
    lanes: tuple[Committed, ...]
    held: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    listed_at: datetime | None = None
    finished_at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True)
class StageDone:
    """What became of all partitions of a run in one stage: each is in a group, or failed."""

    groups: tuple[Group, ...]
    failures: Mapping[str, Exception]

    @property
    def held(self) -> dict[str, tuple[str, ...]]:
        """Failed blocking checks by partition."""
        return {key: reasons for group in self.groups for key, reasons in group.held.items()}


def in_groups(
    context: dg.OpExecutionContext, partition_keys: Sequence[str], work: Callable[[tuple[str, ...]], Group]
) -> StageDone:
    """Do a stage's work on partitions so that those that fail do not stop the others.

    Raises:
        TransientError: None could be done, and Dagster will try the step again.
    """
    done = isolated(partition_keys, work)
    for key, error in done.failures.items():
        context.log.error(f"{key} failed, its rows stay as they are: {error}")
    if done.failures and not done.results:
        error = next(iter(done.failures.values()))
        if is_tried_again(context, error):
            raise error
    return StageDone(tuple(group for _, group in done.results), done.failures)


def is_tried_again(context: dg.OpExecutionContext, error: Exception) -> bool:
    """Whether Dagster will run the step again after this error."""
    return not isinstance(error, PermanentError) and context.retry_number < RETRY.max_retries


def documents_group(
    context: dg.OpExecutionContext, keys: tuple[str, ...], platform: PlatformResource, engine: EngineResource
) -> Group:
    """List the source of the partitions, and bring their documents up to date."""
    output = documents_change(
        platform.slice("documents", keys),
        platform.config,
        engine.engine(),
        on_progress=progress_of(context, "documents"),
        accept_deletions=context.run.tags.get(ACCEPT_DELETIONS_TAG) == "allow",
    )
    # A packed run is about one source; of a range over several, what was listed first is what all partitions cover.
    listed_at = min(output.listed_at.values(), default=None)
    return Group(keys, (commit_output(context, output),), listed_at=listed_at)


def chunks_group(
    context: dg.OpExecutionContext, documents: TableSlice, platform: PlatformResource, engine: EngineResource
) -> Group:
    """Cut the documents of the slice's partitions that changed."""
    keys = documents.partition_keys or ()
    current = platform.slice("chunks", keys)
    checked = _gate(context, platform, documents)
    lanes = [
        commit_output(
            context,
            chunks_change(
                documents.of(*checked.passed),
                current.of(*checked.passed),
                generation,
                engine.engine(),
                on_progress=progress_of(context, "chunks"),
            ),
        )
        for generation in _by_lane(_generations(context, platform), "chunk_lane")
    ]
    return Group(keys, tuple(lanes), checked.held)


def embeddings_group(
    context: dg.OpExecutionContext, chunks: TableSlice, platform: PlatformResource, launcher: EmbeddingLauncherResource
) -> Group:
    """Embed the chunks of the slice's partitions that have no vector yet."""
    keys = chunks.partition_keys or ()
    current = platform.slice("embeddings", keys)
    known = _generations(context, platform)
    lanes = [
        _embed(context, platform, launcher, known, generation, chunks, current)
        for generation in _by_lane(known, "embedding_lane")
    ]
    return Group(
        keys,
        tuple(lane.committed for lane in lanes),
        {key: reasons for lane in lanes for key, reasons in lane.held.items()},
        {"model": known.target.spec.name, **{name: value for lane in lanes for name, value in lane.metadata.items()}},
    )


def index_group(
    context: dg.OpExecutionContext,
    chunks: TableSlice,
    embeddings: TableSlice,
    platform: PlatformResource,
    client: IndexClient,
) -> Group:
    """Bring the index partitions up to date, verify what was removed, and write the ledger."""
    keys = chunks.partition_keys or ()
    known = _generations(context, platform)
    ledger = platform.slice("index_partitions", keys)
    lanes: list[Committed] = []
    held: dict[str, tuple[str, ...]] = {}
    retired: list[str] = []
    passed = set(keys)
    for generation in known.active:
        client.ensure_collection(
            generation.collection,
            dim=generation.spec.dim,
            model_fingerprint=generation.spec.fingerprint,
            config=generation.config.index,
        )
        retired += retire(platform.store, platform.config, client, run_id=context.run.run_id)
        checked = _gate(context, platform, _built(chunks, embeddings, known, generation))
        held.update(checked.held)
        passed.difference_update(checked.held)
        tables = [table.of(*checked.passed) for table in (chunks, embeddings, ledger)]
        output = index_change(
            IndexTables(*tables),
            client,
            generation,
            run_id=context.run.run_id,
            on_progress=progress_of(context, "index_partitions"),
        )
        lanes.append(commit_output(context, output))
    remove_from_kept(platform.store, known, client, sorted(passed), run_id=context.run.run_id)
    extra = {
        "collection": known.target.collection,
        "retired_partitions": ", ".join(retired) or "none",
        **deletions_metadata(platform.store, context.run.run_id),
    }
    return Group(keys, tuple(lanes), held, extra)


@dataclass(frozen=True)
class _Embedded:
    """What was done for one lane of vectors."""

    committed: Committed
    held: Mapping[str, tuple[str, ...]]
    metadata: Mapping[str, object]


def _embed(
    context: dg.OpExecutionContext,
    platform: PlatformResource,
    launcher: EmbeddingLauncherResource,
    known: Generations,
    generation: Generation,
    chunks: TableSlice,
    current: TableSlice,
) -> _Embedded:
    """Embed what a generation's lane lacks.

    A rebuilding that nobody asked for, or whose model fails for good, leaves its lane as it is. That is no failure of
    the step, for what is served goes on taking changes; the run reports it, and publication fails.
    """
    checked = _gate(context, platform, chunks.in_lane(generation.chunk_lane))
    chunks, current = chunks.of(*checked.passed), current.of(*checked.passed)
    plan = plan_embeddings(chunks, current, generation, run_id=context.run.run_id)
    metadata: dict[str, object] = {}
    asked = generation is not known.target or context.run.tags.get(REBUILD_TAG) == "allow"
    not_built = "" if asked else refusal(plan, known)
    started = time.perf_counter()
    report: Mapping[str, Any] = {}
    if plan.manifest and not not_built:
        context.log.info(f"{plan.texts - plan.missing:,} of {plan.texts:,} texts are in the vector cache")
        try:
            keys = chunks.partition_keys or ()
            report = launcher.run(context, plan.manifest, progress_of(context, "embeddings"), keys)
        except RagError as error:
            if known.served is None or generation is not known.target or is_tried_again(context, error):
                raise
            not_built = f"{generation.collection} is not built: {error}. {known.served.collection} serves on"
        else:
            metadata |= {f"worker_{name}": value for name, value in report.items()}
    if not_built:
        context.log.error(not_built)
        metadata[NOT_BUILT] = not_built
        remove_manifest(platform.store, context.run.run_id)
        plan = plan_embeddings(chunks.of(), current.of(), generation, run_id=context.run.run_id)
    output = embeddings_change(plan, embed_seconds=time.perf_counter() - started, report=report)
    return _Embedded(commit_output(context, output), checked.held, metadata)


def _built(chunks: TableSlice, embeddings: TableSlice, known: Generations, generation: Generation) -> TableSlice:
    """Return a generation's vectors, without partitions that `embeddings` left alone although they have chunks.

    It said why: a check that finds all their vectors missing would only say less.
    """
    chunks, embeddings = chunks.in_lane(generation.chunk_lane), embeddings.in_lane(generation.embedding_lane)
    if known.served is None or generation is not known.target:
        return embeddings
    cut, embedded = (count_by_partition(table.read(["partition_key"])) for table in (chunks, embeddings))
    return embeddings.of(*(key for key in embeddings.partition_keys or () if key in embedded or key not in cut))


def _generations(context: dg.OpExecutionContext, platform: PlatformResource) -> Generations:
    known = generations(platform.store, platform.config)
    if known.lost:
        context.log.warning(known.lost)
    return known


def _by_lane(known: Generations, lane: str) -> list[Generation]:
    """Return the generations to work for: of two that share a lane the target, whose settings the lane follows."""
    return list({getattr(generation, lane): generation for generation in known.active}.values())


def _gate(context: dg.OpExecutionContext, platform: PlatformResource, upstream: TableSlice) -> Gate:
    """Let the partitions through whose blocking checks passed, and say which did not."""
    checked = gate(upstream, platform.config, run_id=context.run.run_id)
    for key, reasons in checked.held.items():
        context.log.error(f"{key} is held back, its rows stay as they are: {'; '.join(reasons)}")
    return checked
