"""Documents: list the sources, diff against the table, parse what is new or changed, drop what is gone."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rag_core import ids
from rag_core.config import RagConfig, SourceConfig
from rag_core.engine.base import Engine, ParseJob
from rag_core.errors import ImplausibleShrinkError
from rag_core.freshness.shrink import shrink_message
from rag_core.parsing.settings import ParseSettings, parser_fingerprint
from rag_core.partitions import keys_by_source
from rag_core.sources.base import SourceObject
from rag_core.sources.diff import ObjectDiff, diff
from rag_core.sources.factory import open_source
from rag_core.stages.common import Counts, Progress, StageOutput, count_by_partition, no_progress
from rag_core.stages.reading import parse_listed
from rag_core.stages.seen import seen_source
from rag_core.tables.change import StagedFile, TableChange, read_staged
from rag_core.tables.delta import TableSlice

_EXAMPLES_PER_PARTITION = 5


@dataclass(frozen=True)
class _SourceWork:
    """Of one source: the difference, and by object key the partitions of what is listed and of all that is known.

    `listed_ids` holds the id of every listed object of the source, one after the other: an object for each would take
    fifty times as much. `listed_at` is the time just before the listing began.
    """

    source: SourceConfig
    difference: ObjectDiff
    listed: Mapping[str, str]
    partitions: Mapping[str, str]
    keys: frozenset[str]
    listed_ids: bytearray
    listed_at: datetime
    misplaced: frozenset[tuple[str, str]] = frozenset()

    @property
    def todo(self) -> list[SourceObject]:
        """What is to be parsed."""
        return [*self.difference.new, *self.difference.changed]


def documents_change(
    current: TableSlice,
    config: RagConfig,
    engine: Engine,
    *,
    accept_deletions: bool = False,
    on_progress: Progress = no_progress,
) -> StageOutput:
    """Bring the documents of some partitions up to date with their sources.

    Args:
        current: The `documents` table, narrowed to the partitions of the run.
        config: Sources, buckets and parser limits.
        engine: Where parsing runs.
        accept_deletions: Let any share of a source vanish at once.
        on_progress: Told of listed and parsed objects.

    Returns:
        The change, and counts by partition (in objects for new, changed, deleted, unchanged; in documents for rejected
        and empty). An unchanged source gives an empty change. `listed_at` has an entry for each source of the slice.

    Raises:
        SourceError: A source cannot be listed or read; nothing is deleted because of it.
        ImplausibleShrinkError: So much of a source is gone that it is taken for a source that is not there; nothing was
            parsed or written.
    """
    started = time.perf_counter()
    counts = {key: Counts() for key in current.partition_keys or ()}
    works: list[_SourceWork] = []
    for source_name, keys in keys_by_source(config, current.partition_keys or ()).items():
        work = _diff_source(current, config, config.source(source_name), frozenset(keys))
        if work.difference.deleted and not accept_deletions:
            _refuse_shrink(current, config, work)
        on_progress(f"listed {source_name}", len(work.listed), len(work.listed))
        _count(work, counts)
        works.append(work)
    listed = time.perf_counter()
    files: list[StagedFile] = []
    replaced: list[str] = []
    for work in works:
        if work.todo:
            job = ParseJob(current.store, config, work.source, ingested_at=datetime.now(UTC))
            files += parse_listed(work.todo, job, engine, on_progress=on_progress)
        gone = [*(item.key for item in work.difference.changed), *work.difference.deleted]
        replaced += [ids.doc_id(work.source.name, key) for key in gone]
    seconds = {"list": listed - started, "parse": time.perf_counter() - listed}
    examples = _count_statuses(current, files, counts)
    _count_standing_rejects(current, replaced, counts)
    change = TableChange(
        current,
        "object_id",
        files=tuple(files),
        replaced=tuple(sorted(replaced)),
    )
    totals = {
        "parsed": sum(c.new + c.changed for c in counts.values()),
        "rejected": sum(c.rejected for c in counts.values()),
        "renamed": sum(len(work.difference.renamed) for work in works),
        "bytes_read": sum(item.size_bytes for work in works for item in work.todo),
    }
    listed_at = {work.source.name: work.listed_at for work in works}
    return StageOutput(change, counts, seconds, totals, examples, listed_at=listed_at)


@dataclass(frozen=True)
class ListedObjects:
    """What a listing of a source says of some partitions.

    Attributes:
        counts: By partition, in objects. One that lies in another partition than it belongs to (the number of buckets
            was changed) is new or changed where it belongs, and counts as deleted where it lies.
        outdated: Keys of the objects whose documents are not as the source is now.
    """

    counts: Mapping[str, Counts]
    outdated: tuple[str, ...]


def listed_objects(current: TableSlice, config: RagConfig, source: SourceConfig) -> ListedObjects:
    """List a source and compare it with the documents of the slice's partitions; no object is read.

    Raises:
        SourceError: It cannot be listed.
    """
    keys = frozenset(current.partition_keys or ())
    work = _diff_source(current, config, source, keys)
    counts = {key: Counts() for key in keys}
    _count(work, counts)
    for partition, key in work.misplaced:
        if key in work.listed or work.partitions[key] != partition:
            counts[partition].deleted += 1
    return ListedObjects(counts, (*(item.key for item in work.difference.changed), *work.difference.deleted))


def _diff_source(
    current: TableSlice, config: RagConfig, source_config: SourceConfig, keys: frozenset[str]
) -> _SourceWork:
    buckets = config.buckets_of(source_config)
    settings = ParseSettings.of(config.parsing, source_config)
    listing: list[SourceObject] = []
    places: dict[str, str] = {}
    listed_ids = bytearray()
    listed_at = datetime.now(UTC)
    for item in open_source(source_config).list():
        object_id = item.root_doc_id
        listed_ids += object_id.encode()
        key = ids.partition_key(item.source, ids.bucket_of(object_id, buckets), buckets)
        if key in keys:
            listing.append(item)
            places[item.key] = key
    seen = seen_source(current, source_config.name, keys, buckets, settings)
    difference = diff(listing, seen.objects, parser_fingerprint=parser_fingerprint(settings))
    partitions = {**seen.partitions, **places}
    return _SourceWork(
        source_config, difference, places, partitions, keys, listed_ids, listed_at, misplaced=seen.misplaced
    )


def _refuse_shrink(current: TableSlice, config: RagConfig, work: _SourceWork) -> None:
    """Raise if the whole source, not only its partitions of this run, has lost more objects than is plausible."""
    whole = replace(current, partition_keys=None)
    known = pc.unique(whole.read(["object_id"], pc.field("source") == work.source.name)["object_id"])
    size = len(ids.digest())
    offsets = np.arange(0, len(work.listed_ids) + 1, size, dtype=np.int64)
    listed = pa.LargeStringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(work.listed_ids))
    gone = len(known) - pc.sum(pc.is_in(known.cast(pa.large_string()), listed)).as_py()
    if message := shrink_message(work.source, len(known), gone, config.freshness):
        raise ImplausibleShrinkError(message)


def _count(work: _SourceWork, counts: Mapping[str, Counts]) -> None:
    for item in work.difference.new:
        counts[work.partitions[item.key]].new += 1
    for item in work.difference.changed:
        counts[work.partitions[item.key]].changed += 1
    for key in work.difference.deleted:
        counts[work.partitions[key]].deleted += 1
    listed = Counter(work.listed.values())
    for key in work.keys:
        counts[key].rows_in = listed[key]
        counts[key].unchanged = listed[key] - counts[key].new - counts[key].changed


def _count_standing_rejects(current: TableSlice, replaced: Sequence[str], counts: Mapping[str, Counts]) -> None:
    """Add how many rejected documents the partition holds after the run; `rejected` counts those of this run."""
    rejected = current.read(["partition_key", "object_id"], pc.field("status") == "rejected")
    kept = rejected.filter(pc.invert(pc.is_in(rejected["object_id"], pa.array(replaced, pa.string()))))
    standing = count_by_partition(kept)
    for key, partition in counts.items():
        partition.extra["rejected_in_table"] = standing.get(key, 0) + partition.rejected


def _count_statuses(
    current: TableSlice, files: Sequence[StagedFile], counts: Mapping[str, Counts]
) -> tuple[tuple[str, str, str], ...]:
    """Count rejected and empty documents among the staged rows, and keep a few rejected ones as examples."""
    examples: list[tuple[str, str, str]] = []
    for batch in read_staged(current.store, current.table, files):
        bad = pa.Table.from_batches([batch]).filter(pc.field("status") != "ok")
        columns = (bad[name].to_pylist() for name in ("partition_key", "uri", "status", "reason"))
        for key, uri, status, reason in zip(*columns, strict=True):
            if status == "empty":
                counts[key].empty += 1
                continue
            counts[key].rejected += 1
            if sum(example[0] == key for example in examples) < _EXAMPLES_PER_PARTITION:
                examples.append((key, uri, reason or ""))
    return tuple(examples)
