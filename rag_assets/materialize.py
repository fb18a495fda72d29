"""What every stage does after its change is made: commit it. And what assets, checks and jobs share."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import dagster as dg

from rag_core.errors import PermanentError
from rag_core.stages.common import StageOutput
from rag_core.tables.change import CommitResult, commit
from rag_core.tables.delta import TableSlice

RETRY = dg.RetryPolicy(max_retries=2, delay=2, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
"""For transient failures; permanent ones are raised as `dg.Failure(allow_retries=False)` by `failures_by_class`."""

OWNERS = ["team:rag-platform"]

HELD_BACK = "held_back"
"""Metadata of a partition that a stage did not touch: the blocking checks that its input fails."""
FAILING_IN = "failing_in"
"""Metadata of a declared test's evaluation: the partitions that fail."""

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


def commit_output(context: dg.OpExecutionContext, output: StageOutput) -> Committed:
    """Commit a stage's change, then do what is only true once it is committed."""
    # What the work took is kept with the commit: `rag plan` estimates from it.
    measured = json.dumps({"totals": output.totals, "seconds": output.seconds}, default=float)
    change = replace(output.change, metadata={**output.change.metadata, "measured": measured})
    result = commit(change, run_id=context.run.run_id)
    output.after_commit()
    _log_summary(context, output, committed=result.committed)
    return Committed(output, result)


def _log_summary(context: dg.OpExecutionContext, output: StageOutput, *, committed: bool) -> None:
    touched = {key: counts for key, counts in output.counts.items() if not counts.is_unchanged}
    lines = [f"{key}: {one.new} new, {one.changed} changed, {one.deleted} deleted" for key, one in touched.items()]
    if lines:  # in one message: each is a transaction of the event log
        context.log.info("\n".join(lines))
    for key, uri, reason in output.examples:
        context.log.warning(f"{key}: rejected {uri}: {reason}")
    if not committed:
        context.log.info(f"nothing changed in {len(output.counts)} partitions; nothing was committed")


def markdown_table(columns: tuple[str, ...], rows: list[dict[str, Any]]) -> str:
    """Write rows as a Markdown table; long values are cut."""

    def cell(value: Any) -> str:
        text = " ".join(str("" if value is None else value).split()).replace("|", "\\|")
        return text if len(text) <= _PREVIEW_CHARS else text[: _PREVIEW_CHARS - 1] + "…"

    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(cell(row[column]) for column in columns) + " |" for row in rows]
    return "\n".join(lines)
