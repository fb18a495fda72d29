"""What a materialization says of a partition: what an operator wants to know, and the data version of its content."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import dagster as dg
import pyarrow as pa
from dagster._core.definitions.data_version import (  # the tags' names; not exported by 1.13
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
)

from rag_assets.materialize import HELD_BACK, markdown_table
from rag_assets.stage_work import Group
from rag_core import ids
from rag_core.stages.common import Content, Counts, contents

_PREVIEW: Final[Mapping[str, tuple[str, ...]]] = {
    "documents": ("uri", "status", "title", "mime", "language"),
    "chunks": ("title", "heading_path", "token_count", "text"),
    "embeddings": ("chunk_id", "text_hash", "model_fingerprint"),
    "index_partitions": ("chunk_id", "doc_id", "indexed_at"),
}
_PREVIEW_ROWS: Final = 5


@dataclass(frozen=True)
class PartitionReport:
    """Of one partition: metadata, and the digest of its content, which is its data version."""

    metadata: Mapping[str, Any]
    content_digest: str


@dataclass(frozen=True)
class StageReport:
    """Of a stage: one report for each partition that was done, and figures of the whole run, by name."""

    table: str
    partitions: Mapping[str, PartitionReport]
    run: Mapping[str, Any]
    version: int

    def materializations(self, code_version: str | None) -> list[dg.AssetMaterialization]:
        """Return an event for each partition, with its own data version."""
        tags = {} if code_version is None else {CODE_VERSION_TAG: code_version}
        return [
            dg.AssetMaterialization(
                asset_key=self.table,
                partition=key,
                metadata={**report.metadata, **self.run, "table_version": self.version},
                tags={**tags, DATA_VERSION_TAG: report.content_digest},
            )
            for key, report in self.partitions.items()
        ]

    @property
    def data_version(self) -> str:
        """Digest of the content of all partitions: a run that changes nothing has that of the run before."""
        digests = {key: report.content_digest for key, report in self.partitions.items()}
        if len(digests) == 1:
            return next(iter(digests.values()))
        return ids.digest(*(f"{key}={value}" for key, value in sorted(digests.items())))


def stage_report(groups: Sequence[Group]) -> StageReport:
    """Report on what a stage did.

    Args:
        groups: At least one. Of each, the last lane is the one that rag.yaml asks for; those before serve meanwhile.
    """
    keys = [key for group in groups for key in group.partition_keys]
    table = groups[0].lanes[-1].slice.table
    # The newest of the groups' commits has what all of them wrote.
    version = max(group.lanes[-1].result.version for group in groups)
    current = replace(groups[0].lanes[-1].slice, partition_keys=tuple(keys), version=version)
    # One pass over the table for all partitions: opening it for each of hundreds would take longer than the work.
    found, previews = contents(current), current.heads(_PREVIEW_ROWS, _PREVIEW[table])
    partitions = {
        key: PartitionReport(_of_partition(group, key, found[key], previews[key]), found[key].digest)
        for group in groups
        for key in group.partition_keys
    }
    lanes = [lane for group in groups for lane in group.lanes]
    of_run: dict[str, Any] = {
        "committed": any(lane.result.committed for lane in lanes),
        "bytes_written": sum(lane.result.bytes_written for lane in lanes),
        "rows_written": sum(lane.result.rows_written for lane in lanes),
        **_summed("seconds_", [{step: round(s, 3) for step, s in lane.output.seconds.items()} for lane in lanes]),
        **_summed("run_", [lane.output.totals for lane in lanes]),
        **{name: value for group in groups for name, value in group.extra.items()},
    }
    return StageReport(table, partitions, of_run, version)


def _of_partition(group: Group, key: str, content: Content, preview: pa.Table) -> dict[str, Any]:
    *served, target = group.lanes
    own: dict[str, Any] = {"dagster/row_count": content.rows}
    if reasons := group.held.get(key):
        own[HELD_BACK] = dg.MetadataValue.md("\n".join(f"- {reason}" for reason in reasons))
    own |= _counts_metadata(target.output.counts.get(key, Counts()))
    for lane in served:
        counts = lane.output.counts.get(key, Counts())
        own |= {f"served_{name}": value for name, value in _counts_metadata(counts).items()}
    own["preview"] = dg.MetadataValue.md(_preview(preview))
    if rejected := [example for example in target.output.examples if example[0] == key]:
        own["rejected_examples"] = dg.MetadataValue.md(_rejected(rejected))
    return own


def _summed(prefix: str, figures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up the figures of all lanes by name."""
    names = dict.fromkeys(name for one in figures for name in one)
    return {f"{prefix}{name}": sum(one.get(name, 0) for one in figures) for name in names}


def _counts_metadata(counts: Counts) -> dict[str, float]:
    return {
        "rows_in": counts.rows_in,
        "new": counts.new,
        "changed": counts.changed,
        "deleted": counts.deleted,
        "unchanged": counts.unchanged,
        "rejected": counts.rejected,
        "empty": counts.empty,
        **counts.extra,
    }


def _preview(rows: pa.Table) -> str:
    return markdown_table(tuple(rows.column_names), rows.to_pylist()) if rows.num_rows else "no rows"


def _rejected(examples: list[tuple[str, str, str]]) -> str:
    rows = [{"document": uri, "reason": reason} for _, uri, reason in examples]
    return markdown_table(("document", "reason"), rows)
