"""What every stage does after its change is made: commit it, and say in metadata what an operator wants to know."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dagster as dg

from rag_core import ids
from rag_core.errors import PermanentError
from rag_core.stages.common import Counts, StageOutput, content_digests, count_by_partition
from rag_core.tables.change import commit
from rag_core.tables.delta import TableSlice

RETRY = dg.RetryPolicy(max_retries=2, delay=2, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
"""For transient failures; permanent ones are raised as `dg.Failure(allow_retries=False)` by `failures_by_class`."""

OWNERS = ["team:rag-platform"]

_PREVIEW_ROWS = 5
_PREVIEW_CHARS = 120


@contextmanager
def failures_by_class() -> Iterator[None]:
    """Turn a permanent error into a failure that Dagster does not retry; others keep their class and are retried."""
    try:
        yield
    except PermanentError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from error


def materialize(
    context: dg.AssetExecutionContext,
    output: StageOutput,
    *,
    preview: tuple[str, ...],
    extra: Mapping[str, Any] | None = None,
) -> dg.MaterializeResult[TableSlice]:
    """Commit a stage's change and return its result, with metadata for the run and for each partition.

    The data version is a digest of the content of the run's partitions: a run that changes nothing has the version of
    the run before, whatever it did. In a run of several partitions each also has its own `content_digest`.
    """
    base = output.change.base
    result = commit(output.change, run_id=context.run_id)
    output.after_commit()
    current = TableSlice(base.store, base.table, base.partition_keys, result.version)
    digests = content_digests(current)
    rows = count_by_partition(current.read(["partition_key"]))
    _log_summary(context, output, committed=result.committed)
    of_run: dict[str, Any] = {
        "committed": result.committed,
        "bytes_written": result.bytes_written,
        "rows_written": result.rows_written,
        **{f"seconds_{step}": round(value, 3) for step, value in output.seconds.items()},
        **{f"run_{name}": value for name, value in output.totals.items()},
        **(extra or {}),
    }
    for key, counts in output.counts.items():
        # The partition's own figures come first, then those of the run; Dagster would put the run's first.
        own: dict[str, Any] = {"dagster/row_count": rows.get(key, 0), **_counts_metadata(counts)}
        own["preview"] = dg.MetadataValue.md(_preview(current.of(key), preview))
        if rejected := [example for example in output.examples if example[0] == key]:
            own["rejected_examples"] = dg.MetadataValue.md(_rejected(rejected))
        own["content_digest"] = digests[key]
        context.add_asset_metadata({**own, **of_run}, partition_key=key)
    version = ids.digest(*(f"{key}={value}" for key, value in sorted(digests.items())))
    return dg.MaterializeResult(value=current, data_version=dg.DataVersion(version))


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
