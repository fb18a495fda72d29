"""What the schedules ask for, the verification after a reconciliation, and which partitions are being worked on."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from rag_assets.packed import PACKED_JOB, partitions_of, run_config
from rag_assets.under_way import under_way
from rag_core.config import RagConfig
from rag_core.errors import ConfigError
from rag_core.partitions import all_partition_keys, source_of
from sensors.automation import build_automation_sensor
from sensors.schedules import RECONCILE_TAG, build_schedules, build_verify_sensor


def _config(**settings: object) -> RagConfig:
    sources = [
        {"kind": "files", "name": name, "root": "/x", "buckets": buckets} for name, buckets in (("a", 5), ("b", 2))
    ]
    values = {"store": {"root": "/s"}, "sources": sources, "run": {"max_partitions_per_run": 3}, **settings}
    return RagConfig.model_validate(values)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:  # schedules see only one that is on disk
        yield instance


def _run(
    instance: dg.DagsterInstance, name: str, status: dg.DagsterRunStatus, *keys: str, **tags: str
) -> dg.DagsterRun:
    @dg.op(name="refresh_documents", config_schema={"partitions": [str]})
    def an_op() -> None: ...

    @dg.job(name=name)
    def a_job() -> None:
        an_op()

    named = {tag.replace("__", "/"): value for tag, value in tags.items()}
    return instance.create_run_for_job(a_job, run_config=run_config(keys), tags=named, status=status)


def _reconcile(config: RagConfig, instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    schedule = next(one for one in build_schedules(config) if one.name == "reconcile")
    at = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
    with dg.build_schedule_context(instance=instance, scheduled_execution_time=at) as context:
        return list(schedule.evaluate_tick(context).run_requests or [])


def test_the_reconciliation_takes_every_partition_once(instance: dg.DagsterInstance) -> None:
    config = _config()
    requests = _reconcile(config, instance)
    packs = [partitions_of(one.run_config) for one in requests]
    assert sorted(key for keys in packs for key in keys) == sorted(all_partition_keys(config))
    assert all(len(keys) <= 3 and len({source_of(key) for key in keys}) == 1 for keys in packs)
    assert len({one.run_key for one in requests}) == len(requests)
    assert all(one.tags["rag/reason"] == "reconcile" and one.tags["dagster/priority"] == "-5" for one in requests)
    assert _reconcile(config, instance)[0].run_key == requests[0].run_key, "a tick that is repeated asks for the same"


def test_a_reconciliation_waits_for_the_one_before(instance: dg.DagsterInstance) -> None:
    _run(instance, PACKED_JOB, dg.DagsterRunStatus.NOT_STARTED, "a__00", rag__reason="reconcile")
    assert _reconcile(_config(), instance) == []


def test_verification_follows_the_last_run_of_a_reconciliation(instance: dg.DagsterInstance) -> None:
    sensor = build_verify_sensor(_config())

    def asked() -> list[str | None]:
        with dg.build_sensor_context(instance=instance) as context:
            return [one.run_key for one in sensor.evaluate_tick(context).run_requests or []]

    assert asked() == []
    tags = {"rag__reason": "reconcile", RECONCILE_TAG: "2026-03-01T02:00+00:00"}
    _run(instance, PACKED_JOB, dg.DagsterRunStatus.SUCCESS, "a__00", **tags)
    last = _run(instance, PACKED_JOB, dg.DagsterRunStatus.STARTED, "a__01", **tags)
    assert asked() == []
    instance.report_run_failed(last)
    assert asked() == ["verify/2026-03-01T02:00+00:00"]


def test_partitions_under_way_are_those_of_runs_that_have_begun(instance: dg.DagsterInstance) -> None:
    config, started = _config(), dg.DagsterRunStatus.STARTED
    _run(instance, PACKED_JOB, started, "a__00", "a__03")
    _run(instance, PACKED_JOB, dg.DagsterRunStatus.NOT_STARTED, "a__04")
    _run(instance, PACKED_JOB, dg.DagsterRunStatus.SUCCESS, "a__02")
    _run(instance, "build_index", started, dagster__partition="b__00")
    own = _run(
        instance, "build_chunks", started,
        dagster__asset_partition_range_start="a__04", dagster__asset_partition_range_end="b__01",
    )  # fmt: skip
    assert under_way(instance, config, but=own.run_id) == {"a__00", "a__03", "b__00"}
    assert under_way(instance, config) == {"a__00", "a__03", "a__04", "b__00", "b__01"}


@pytest.mark.parametrize("enabled", [True, False])
def test_all_are_on_from_the_start_or_off(enabled: bool) -> None:
    config = _config(automation={"enabled": enabled}, backup={"to": "/b"})
    made = [*build_schedules(config), build_verify_sensor(config), build_automation_sensor(config)]
    assert {one.default_status.value for one in made} == {"RUNNING" if enabled else "STOPPED"}


def test_without_a_place_no_backup_is_taken() -> None:
    status = {one.name: one.default_status.value for one in build_schedules(_config())}
    assert status == {"reconcile": "RUNNING", "retention": "RUNNING", "back_up": "STOPPED"}


@pytest.mark.parametrize("key", ["reconcile_cron", "retention_cron", "backup_cron"])
def test_a_wrong_cron_names_its_key(key: str) -> None:
    with pytest.raises(ConfigError, match=f"automation.{key} is 'nightly'"):
        build_schedules(_config(automation={key: "nightly"}))
