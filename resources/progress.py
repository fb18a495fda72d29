"""Where a stage's progress goes: the run's log by default, bars in the terminal under `rag run`."""

import time
from collections.abc import Callable

import dagster as dg

from rag_core.stages.common import Progress

_LOG_EVERY_S = 5.0

_listener: Callable[[str, str, int, int], None] | None = None


def set_listener(listener: Callable[[str, str, int, int], None] | None) -> None:
    """Send progress of stages that run in this process to `listener(asset, what, done, total)` as well."""
    global _listener  # noqa: PLW0603 -- one terminal per process
    _listener = listener


def progress_of(context: dg.AssetExecutionContext | dg.OpExecutionContext, asset: str) -> Progress:
    """Return a callback that writes to the run's log at most every few seconds, and to the listener every time.

    Args:
        context: Of the step; its log is written to.
        asset: Whose progress it is, for the listener.
    """
    last = time.monotonic()

    def report(what: str, done: int, total: int) -> None:
        nonlocal last
        if _listener is not None:
            _listener(asset, what, done, total)
        if time.monotonic() - last >= _LOG_EVERY_S:
            last = time.monotonic()
            context.log.info(f"{what}: {done:,} of {total:,}" if total else f"{what}: {done:,}")

    return report
