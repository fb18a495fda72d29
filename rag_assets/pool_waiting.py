"""Waiting for a place in a pool without burning a core."""

import time

from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext


def wait_for_pools_asleep() -> None:
    """Let runs that are blocked by a pool sleep until they may ask again.

    Dagster 1.13 means to, but takes `min([0, *waits])` for it (`interval_to_next_pending_claim_check`): a run of the
    in-process executor asks for its next step as fast as it can, all the time, and takes a core from the run that it
    waits for. `tests/unit/test_pool_waiting.py` says when this is no longer needed.
    """
    InstanceConcurrencyContext.interval_to_next_pending_claim_check = _interval_s  # type: ignore[assignment, method-assign]


def _interval_s(context: InstanceConcurrencyContext) -> float:
    """Return the seconds until the first of the blocked steps may ask again."""
    now = time.time()
    return min((max(0.0, ready_at - now) for ready_at in context._pending_timeouts.values()), default=0.0)
