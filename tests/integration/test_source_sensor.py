"""The sensor of a source on a Dagster instance: what it asks for, and what becomes of it."""

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
import yaml

from definitions import build_defs
from rag_assets.packed import partitions_of
from rag_core.config_loader import load_config
from rag_core.freshness.dirty import dirty_partitions
from rag_core.freshness.passes import load_passes
from rag_core.tables.store import Store


class Sensor:
    """A source in a folder, its sensor, and an instance."""

    def __init__(self, root: Path, instance: dg.DagsterInstance) -> None:
        self.documents = root / "wiki"
        self.documents.mkdir()
        source = {"name": "wiki", "kind": "files", "root": "wiki", "buckets": 4}
        freshness = {"settle_s": 0, "shrink_from": 2}
        path = root / "rag.yaml"
        path.write_text(yaml.safe_dump({"store": {"root": "data"}, "sources": [source], "freshness": freshness}))
        self.config = load_config(path).config
        self.store = Store.of(self.config.store)
        self.defs = build_defs(config_path=path)
        self.instance = instance
        self.cursor: str | None = None

    def write(self, *names: str) -> None:
        for name in names:
            (self.documents / name).write_text(f"# {name}\n\nSomething about {name}.\n")

    def tick(self, *, keep_cursor: bool = True) -> dg.SensorResult:
        context = dg.build_sensor_context(instance=self.instance, cursor=self.cursor)
        result = self.defs.resolve_sensor_def("source_wiki").evaluate_tick(context)
        if keep_cursor:
            self.cursor = result.cursor
        return result

    def start(self, request: dg.RunRequest, status: dg.DagsterRunStatus) -> dg.DagsterRun:
        """Enter the run of a request into the instance, as the daemon does."""
        job = self.defs.resolve_job_def("build_partitions")
        return self.instance.create_run_for_job(
            job_def=job, run_config=request.run_config, tags=dict(request.tags), status=status
        )

    def dirty(self) -> list[str]:
        return sorted(
            one.partition_key for one in dirty_partitions(self.store, self.config, "wiki", now=datetime.now(UTC))
        )


@pytest.fixture
def sensor(tmp_path: Path) -> Sensor:
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        yield Sensor(tmp_path, instance)


def requested(result: dg.SensorResult) -> set[str]:
    return {key for request in result.run_requests or () for key in partitions_of(request.run_config)}


def test_asks_for_what_changed_and_only_once(sensor: Sensor) -> None:
    sensor.write("a.md", "b.md", "c.md")
    first = sensor.tick()
    assert requested(first) == set(sensor.dirty()) != set()
    (request,) = first.run_requests
    assert request.tags["rag/source"] == "wiki"
    sensor.start(request, dg.DagsterRunStatus.STARTING)
    assert not sensor.tick().run_requests  # the partitions are under way


def test_tick_that_was_lost_is_asked_for_again_by_the_same_key(sensor: Sensor) -> None:
    sensor.write("a.md", "b.md")
    lost = sensor.tick(keep_cursor=False)
    again = sensor.tick()
    assert [request.run_key for request in lost.run_requests] == [request.run_key for request in again.run_requests]
    sensor.write("d.md", "e.md", "f.md", "g.md")
    assert [request.run_key for request in sensor.tick().run_requests] != [again.run_requests[0].run_key]


def test_run_that_was_killed_is_a_crash_and_is_tried_later(sensor: Sensor) -> None:
    sensor.write("a.md")
    (request,) = sensor.tick().run_requests
    run = sensor.start(request, dg.DagsterRunStatus.STARTED)
    sensor.instance.report_run_failed(run, message="killed")
    result = sensor.tick()
    passes = load_passes(sensor.store).to_pylist()
    assert [(one["run_id"], one["outcome"], one["failure"]) for one in passes] == [(run.run_id, "crashed", "transient")]
    assert not result.run_requests
    assert "tried later" in (result.skip_message or "")
    sensor.tick()
    assert load_passes(sensor.store).num_rows == 1  # it is written down once
    (one,) = dirty_partitions(sensor.store, sensor.config, "wiki", now=datetime.now(UTC))
    assert (one.attempts, one.stuck) == (1, False)


def test_source_that_is_not_there_asks_for_nothing_and_says_why(sensor: Sensor) -> None:
    sensor.write("a.md", "b.md", "c.md", "d.md")
    assert sensor.tick().run_requests
    sensor.documents.rename(sensor.documents.with_name("unmounted"))
    assert "no folder" in (sensor.tick().skip_message or "")
    sensor.documents.mkdir()
    assert "4 of 4 known objects are no longer listed" in (sensor.tick().skip_message or "")
    assert load_passes(sensor.store).num_rows == 0
