"""What the metrics of runs say of a real Dagster instance."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from rag_assets.packed import REASON_TAG
from rag_assets.run_metrics import RunMetrics
from tests.unit.monitoring.facts import say


@dg.op(pool="embedding")
def work(context: dg.OpExecutionContext) -> None:
    if context.run.tags.get("fails"):
        raise ValueError("asked to")


@dg.job
def publish_index() -> None:
    work()


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as made:
        yield made


def now() -> datetime:
    return datetime.now(UTC)


def test_the_queue_by_why_runs_were_asked_for(instance: dg.DagsterInstance) -> None:
    group = RunMetrics(lambda: instance, ["embedding"])
    said = say(group, now())
    assert said["rag_runs{change,queued}"] == 0, "an autoscaler needs a 0, not nothing"
    assert said["rag_run_queue_oldest_seconds"] == 0
    for tags in ({REASON_TAG: "change"}, {REASON_TAG: "change"}, {"dagster/backfill": "x"}, {REASON_TAG: "nobody"}):
        instance.create_run_for_job(publish_index, status=dg.DagsterRunStatus.NOT_STARTED, tags=tags)
    instance.create_run_for_job(publish_index, status=dg.DagsterRunStatus.STARTED, tags={REASON_TAG: "manual"})
    said = say(group, now())
    assert said["rag_runs{change,queued}"] == 2
    assert said["rag_runs{backfill,queued}"] == 1
    assert said["rag_runs{other,queued}"] == 1
    assert said["rag_runs{manual,started}"] == 1
    assert said["rag_run_queue_oldest_seconds"] > 0


@pytest.mark.slow
def test_runs_that_ended_are_counted_once_from_when_the_exporter_started(instance: dg.DagsterInstance) -> None:
    publish_index.execute_in_process(instance=instance)
    group = RunMetrics(lambda: instance, [])
    assert say(group, now())["rag_runs_ended_total{publish_index,success}"] == 0
    publish_index.execute_in_process(instance=instance)
    publish_index.execute_in_process(instance=instance, tags={"fails": "1"}, raise_on_error=False)
    for _ in range(2):
        said = say(group, now())
        assert said["rag_runs_ended_total{publish_index,success}"] == 1
        assert said["rag_runs_ended_total{publish_index,failure}"] == 1
        assert said["rag_runs_ended_total{build_partitions,failure}"] == 0
        assert said["rag_run_duration_seconds_count{publish_index}"] == 2


def test_places_of_pools_and_daemons_that_are_not_there(instance: dg.DagsterInstance) -> None:
    instance.event_log_storage.set_concurrency_slots("embedding", 3)
    run = instance.create_run_for_job(publish_index)
    instance.event_log_storage.claim_concurrency_slot("embedding", run.run_id, "work")
    said = say(RunMetrics(lambda: instance, ["milvus_writes"]), now())
    assert said["rag_pool_slots{embedding}"] == 3
    assert said["rag_pool_slots_used{embedding}"] == 1
    assert said["rag_pool_steps_waiting{embedding}"] == 0
    assert "rag_pool_slots{milvus_writes}" in said
    daemons = {name for name in said if name.startswith("rag_daemon_healthy")}
    assert daemons
    assert all(said[name] == 0 for name in daemons)


def test_an_instance_that_cannot_be_opened_yet_is_opened_later(instance: dg.DagsterInstance) -> None:
    answers = [OSError("no database"), instance]

    def opened() -> dg.DagsterInstance:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    group = RunMetrics(opened, [])
    with pytest.raises(OSError, match="no database"):
        group.update(now())
    assert "rag_run_queue_oldest_seconds" in say(group, now())


@pytest.mark.slow
def test_an_instance_of_many_projects_does_not_make_a_label_of_each_job(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag_assets.run_metrics._JOBS_AT_MOST", 2)
    group = RunMetrics(lambda: instance, [])
    say(group, now())
    for number in range(4):
        dg.GraphDefinition(name=f"job_{number}", node_defs=[]).to_job().execute_in_process(instance=instance)
    said = say(group, now())
    ended = {name: value for name, value in said.items() if name.startswith("rag_runs_ended_total{") and value}
    assert sum(ended.values()) == 4
    assert ended["rag_runs_ended_total{other,success}"] == 2
