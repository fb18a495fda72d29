"""Runs that wait for a pool sleep."""

import importlib
import time

import dagster as dg
import pytest
from dagster._core.execution.plan import instance_concurrency_context as dagster_module

from rag_assets.pool_waiting import wait_for_pools_asleep


def blocked(instance: dg.DagsterInstance, context_class: type) -> float:
    """Block a step by a pool of one that another run holds, and return for how long it is told to sleep."""
    instance.event_log_storage.set_concurrency_slots("milvus_writes", 1)
    holder, waiter = (
        instance.create_run_for_job(job_def=_job(name), status=dg.DagsterRunStatus.STARTED) for name in ("one", "two")
    )
    with context_class(instance, holder) as holds, context_class(instance, waiter) as waits:
        assert holds.claim("milvus_writes", "index")
        assert not waits.claim("milvus_writes", "index")
        interval = waits.interval_to_next_pending_claim_check()
        holds.free_step("index")
        return float(interval)


def _job(name: str) -> dg.JobDefinition:
    @dg.op(name=f"index_{name}")
    def index() -> None: ...

    return dg.GraphDefinition(name=name, node_defs=[index]).to_job()


@pytest.mark.slow
def test_blocked_step_sleeps_until_it_may_ask_again() -> None:
    with dg.instance_for_test() as instance:
        wait_for_pools_asleep()
        assert 0.5 < blocked(instance, dagster_module.InstanceConcurrencyContext) <= 1.1


@pytest.mark.slow
def test_dagster_itself_still_does_not_sleep() -> None:
    """Once this fails, Dagster does it right, and `rag_assets.pool_waiting` can go."""
    source = importlib.util.find_spec(dagster_module.__name__)
    fresh = importlib.util.module_from_spec(source)
    source.loader.exec_module(fresh)
    with dg.instance_for_test() as instance:
        assert blocked(instance, fresh.InstanceConcurrencyContext) <= 0


@pytest.mark.slow
def test_nothing_pending_is_no_wait() -> None:
    wait_for_pools_asleep()
    with dg.instance_for_test() as instance:
        run = instance.create_run_for_job(job_def=_job("three"), status=dg.DagsterRunStatus.STARTED)
        with dagster_module.InstanceConcurrencyContext(instance, run) as context:
            started = time.monotonic()
            assert context.interval_to_next_pending_claim_check() == 0.0
            assert time.monotonic() - started < 1
