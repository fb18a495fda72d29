"""What every stage does after its change is made: commit it, and say in metadata what an operator wants to know."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import dagster as dg

from rag_core import ids
from rag_core.errors import PermanentError
from rag_core.stages.common import Counts, StageOutput, content_digests, count_by_partition
from rag_core.tables.change import CommitResult, commit
from rag_core.tables.delta import TableSlice

RETRY = dg.RetryPolicy(max_retries=2, delay=2, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
"""For transient failures; permanent ones are raised as `dg.Failure(allow_retries=False)` by `failures_by_class`."""

OWNERS = ["team:rag-platform"]

HELD_BACK = "held_back"
"""Metadata of a partition that a stage did not touch: the blocking checks that its input fails."""
FAILING_IN = "failing_in"
"""Metadata of a declared test's evaluation: the partitions that fail."""

_PREVIEW_ROWS = 5
_PREVIEW_CHARS = 120


@contextmanager
def failures_by_class() -> Iterator[None]:
    """Turn a permanent error into a failure that Dagster does not retry; others keep their class and are retried."""
    try:
        yield
    except PermanentError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from error


@dataclass(frozen=True)
class Committed:
    """A stage's change of one lane, after its commit."""

    output: StageOutput
    result: CommitResult

    @property
    def slice(self) -> TableSlice:
        """The lane's partitions as of the commit."""
        return replace(self.output.change.base, version=self.result.version)


def commit_output(context: dg.AssetExecutionContext, output: StageOutput) -> Committed:
    """Commit a stage's change, then do what is only true once it is committed."""
    # What the work took is kept with the commit: `rag plan` estimates from it.
    measured = json.dumps({"totals": output.totals, "seconds": output.seconds}, default=float)
    change = replace(output.change, metadata={**output.change.metadata, "measured": measured})
    result = commit(change, run_id=context.run_id)
    output.after_commit()
    _log_summary(context, output, committed=result.committed)
    return Committed(output, result)


def materialize(
    context: dg.AssetExecutionContext,
    lanes: Sequence[Committed],
    *,
    preview: tuple[str, ...],
    held: Mapping[str, Sequence[str]] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dg.MaterializeResult[TableSlice]:
    """Return a stage's result, with metadata for the run and for each partition.

    The data version is a digest of the content of the run's partitions: a run that changes nothing has the version of
    the run before, whatever it did. In a run of several partitions each also has its own `content_digest`.

    Args:
        context: Of the asset.
        lanes: What was committed; the last is the lane that rag.yaml asks for, those before are served meanwhile.
        preview: Columns that are shown of a few rows.
        held: Partition key -> failed blocking checks, of partitions that this stage did not touch because of them.
        extra: Further metadata of the run.
    """
    *served, target = lanes
    current = replace(target.slice, partition_keys=tuple(context.partition_keys))
    digests = content_digests(current)
    rows = count_by_partition(current.read(["partition_key"]))
    of_run: dict[str, Any] = {
        "committed": any(lane.result.committed for lane in lanes),
        "bytes_written": sum(lane.result.bytes_written for lane in lanes),
        "rows_written": sum(lane.result.rows_written for lane in lanes),
        **_summed("seconds_", [{step: round(s, 3) for step, s in lane.output.seconds.items()} for lane in lanes]),
        **_summed("run_", [lane.output.totals for lane in lanes]),
        **(extra or {}),
    }
    for key in context.partition_keys:
        # The partition's own figures come first, then those of the run; Dagster would put the run's first.
        counts = target.output.counts.get(key, Counts())
        own: dict[str, Any] = {"dagster/row_count": rows.get(key, 0)}
        if reasons := (held or {}).get(key):
            own[HELD_BACK] = dg.MetadataValue.md("\n".join(f"- {reason}" for reason in reasons))
        own |= _counts_metadata(counts)
        for lane in served:
            counts_served = lane.output.counts.get(key, Counts())
            own |= {f"served_{name}": value for name, value in _counts_metadata(counts_served).items()}
        own["preview"] = dg.MetadataValue.md(_preview(current.of(key), preview))
        if rejected := [example for example in target.output.examples if example[0] == key]:
            own["rejected_examples"] = dg.MetadataValue.md(_rejected(rejected))
        own["content_digest"] = digests[key]
        context.add_asset_metadata({**own, **of_run}, partition_key=key)
    version = ids.digest(*(f"{key}={value}" for key, value in sorted(digests.items())))
    return dg.MaterializeResult(value=replace(current, lane=None), data_version=dg.DataVersion(version))


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


def _log_summary(context: dg.AssetExecutionContext, output: StageOutput, *, committed: bool) -> None:
    touched = {key: counts for key, counts in output.counts.items() if not counts.is_unchanged}
    for key, counts in touched.items():
        context.log.info(f"{key}: {counts.new} new, {counts.changed} changed, {counts.deleted} deleted")
    for key, uri, reason in output.examples:
        context.log.warning(f"{key}: rejected {uri}: {reason}")
    if not committed:
        context.log.info(f"nothing changed in {len(output.counts)} partitions; nothing was committed")


def _preview(current: TableSlice, columns: tuple[str, ...]) -> str:
    rows = current.head(_PREVIEW_ROWS, columns).to_pylist()
    return markdown_table(columns, rows) if rows else "no rows"


def _rejected(examples: list[tuple[str, str, str]]) -> str:
    rows = [{"document": uri, "reason": reason} for _, uri, reason in examples]
    return markdown_table(("document", "reason"), rows)


def markdown_table(columns: tuple[str, ...], rows: list[dict[str, Any]]) -> str:
    """Write rows as a Markdown table; long values are cut."""

    def cell(value: Any) -> str:
        text = " ".join(str("" if value is None else value).split()).replace("|", "\\|")
        return text if len(text) <= _PREVIEW_CHARS else text[: _PREVIEW_CHARS - 1] + "…"

    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(cell(row[column]) for column in columns) + " |" for row in rows]
    return "\n".join(lines)
