"""Documents: list the sources, diff against the table, parse what is new or changed, drop what is gone."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from rag_core import ids
from rag_core.config import RagConfig, SourceConfig
from rag_core.engine.base import Engine, ParseJob
from rag_core.parsing.settings import ParseSettings, parser_fingerprint
from rag_core.partitions import keys_by_source
from rag_core.sources.base import SourceObject
from rag_core.sources.diff import ObjectDiff, SeenObject, diff
from rag_core.sources.factory import open_source
from rag_core.stages.common import Counts, Progress, StageOutput, no_progress
from rag_core.tables.change import StagedFile, TableChange, read_staged
from rag_core.tables.delta import TableSlice

_SEEN_COLUMNS = ("partition_key", "object_key", "object_fingerprint", "content_hash", "parser_fingerprint", "member")
_EXAMPLES_PER_PARTITION = 5


@dataclass(frozen=True)
class _SourceWork:
    config: SourceConfig
    difference: ObjectDiff
    listed: Mapping[str, int]
    keys: frozenset[str]


def documents_change(
    current: TableSlice,
    config: RagConfig,
    engine: Engine,
    *,
    on_progress: Progress = no_progress,
) -> StageOutput:
    """Bring the documents of some partitions up to date with their sources.

    Args:
        current: The `documents` table, narrowed to the partitions of the run.
        config: Sources, buckets and parser limits.
        engine: Where parsing runs.
        on_progress: Told of listed and parsed objects.

    Returns:
        The change, and counts by partition (in objects for new, changed, deleted, unchanged; in documents for rejected
        and empty). An unchanged source gives an empty change.

    Raises:
        SourceError: A source cannot be listed or read; nothing is deleted because of it.
    """
    started = time.perf_counter()
    seen = _seen_objects(current)
    counts = {key: Counts() for key in current.partition_keys or ()}
    files: list[StagedFile] = []
    replaced: list[str] = []
    renamed = bytes_read = 0
    seconds = {"list": 0.0, "parse": 0.0}
    for source_name, keys in keys_by_source(config, current.partition_keys or ()).items():
        source_config = config.source(source_name)
        work = _diff_source(config, source_config, frozenset(keys), seen)
        on_progress(f"listed {source_name}", sum(work.listed.values()), sum(work.listed.values()))
        _count(config, work, counts)
        todo = [*work.difference.new, *work.difference.changed]
        seconds["list"] += time.perf_counter() - started
        started = time.perf_counter()
        if todo:
            job = ParseJob(current.store, config, source_config, ingested_at=datetime.now(UTC))
            files += engine.parse(todo, job, on_progress=on_progress)
        seconds["parse"] += time.perf_counter() - started
        started = time.perf_counter()
        gone = [*(item.key for item in work.difference.changed), *work.difference.deleted]
        replaced += [ids.doc_id(source_name, key) for key in gone]
        renamed += len(work.difference.renamed)
        bytes_read += sum(item.size_bytes for item in todo)
    examples = _count_statuses(current, files, counts)
    change = TableChange(
        current,
        "object_id",
        files=tuple(files),
        replaced=tuple(sorted(replaced)),
    )
    totals = {
        "parsed": sum(c.new + c.changed for c in counts.values()),
        "rejected": sum(c.rejected for c in counts.values()),
        "renamed": renamed,
        "bytes_read": bytes_read,
    }
    return StageOutput(change, counts, seconds, totals, examples)


def _seen_objects(current: TableSlice) -> dict[str, dict[str, SeenObject]]:
    """Read what the table knows: partition key -> object key -> what was seen of the object."""
    table = current.read(list(_SEEN_COLUMNS))
    seen: dict[str, dict[str, SeenObject]] = {key: {} for key in current.partition_keys or ()}
    columns = (table[name].to_pylist() for name in _SEEN_COLUMNS)
    for partition, key, object_fingerprint, content_hash, parser, member in zip(*columns, strict=True):
        if member == "" or key not in seen[partition]:
            seen[partition][key] = SeenObject(object_fingerprint, content_hash, parser)
    return seen


def _diff_source(
    config: RagConfig,
    source_config: SourceConfig,
    keys: frozenset[str],
    seen: Mapping[str, Mapping[str, SeenObject]],
) -> _SourceWork:
    buckets = config.buckets_of(source_config)
    listing: list[SourceObject] = []
    listed = dict.fromkeys(keys, 0)
    for item in open_source(source_config).list():
        key = ids.partition_key(item.source, ids.bucket_of(item.root_doc_id, buckets), buckets)
        if key in keys:
            listing.append(item)
            listed[key] += 1
    known = {key: value for partition in keys for key, value in seen[partition].items()}
    fingerprint = parser_fingerprint(ParseSettings.of(config.parsing, source_config))
    return _SourceWork(source_config, diff(listing, known, parser_fingerprint=fingerprint), listed, keys)


def _count(config: RagConfig, work: _SourceWork, counts: Mapping[str, Counts]) -> None:
    buckets = config.buckets_of(work.config)

    def partition(key: str) -> Counts:
        bucket = ids.bucket_of(ids.doc_id(work.config.name, key), buckets)
        return counts[ids.partition_key(work.config.name, bucket, buckets)]

    for item in work.difference.new:
        partition(item.key).new += 1
    for item in work.difference.changed:
        partition(item.key).changed += 1
    for key in work.difference.deleted:
        partition(key).deleted += 1
    for key in work.keys:
        counts[key].rows_in = work.listed[key]
        counts[key].unchanged = work.listed[key] - counts[key].new - counts[key].changed


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
