"""The sensor on a Dagster instance and a real store: what goes wrong is told, and when it is well again."""

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from rag_core.alerts import reading
from rag_core.alerts.book import AlertBook
from rag_core.alerts.history import read_alerts
from rag_core.alerts.state import STATE_PATH, load_state
from rag_core.config import RagConfig
from rag_core.config_freshness import AlertsConfig, AutomationConfig, WebhookConfig
from rag_core.generation import configured
from rag_core.reports.pages import write_text
from rag_core.tables.log import append_rows
from rag_core.tables.store import Store
from sensors import alerts as sensor_module
from sensors.alerts import build_alert_sensor
from tests.report_support import append, config_of

LATER = timedelta(seconds=61)


class Clock(datetime):
    """The time of the evaluations: moved by hand."""

    current = datetime.now(UTC)

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return cls.current


class World:
    """A store, an instance, and the sensor that looks at both."""

    def __init__(self, root: Path, instance: dg.DagsterInstance, **alerts: Any) -> None:
        (root / "data").mkdir(parents=True)
        self.config: RagConfig = config_of(root).model_copy(update={"alerts": AlertsConfig(**alerts)})
        self.store = Store.of(self.config.store)
        self.instance = instance
        self.cursor: str | None = None
        self.sensor = build_alert_sensor(self.config)

    def tick(self) -> str:
        """Evaluate the sensor as the daemon would; return what it says."""
        with dg.build_sensor_context(instance=self.instance, cursor=self.cursor) as context:
            data = self.sensor.evaluate_tick(context)
        self.cursor = data.cursor
        assert not data.run_requests
        return str(data.skip_message)

    def open(self) -> set[str]:
        """Keys of the alerts that are open after two evaluations more than a minute apart."""
        for _ in range(2):
            self.tick()
            Clock.current += LATER
        self.tick()
        return set(load_state(self.store).open)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    Clock.current = datetime.now(UTC)
    monkeypatch.setattr(sensor_module, "datetime", Clock)
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        yield World(tmp_path / "world", instance)


@dg.op(config_schema={"fails": bool})
def work(context: dg.OpExecutionContext) -> None:
    if context.op_config["fails"]:
        raise dg.Failure(description="no space left on device", allow_retries=False)


@dg.job
def compact() -> None:
    work()


@dg.job
def build_partitions() -> None:
    work()


def run(world: World, job: dg.JobDefinition, *, fails: bool, **tags: str) -> str:
    done = job.execute_in_process(
        run_config={"ops": {"work": {"config": {"fails": fails}}}},
        instance=world.instance, raise_on_error=False, tags=tags,
    )  # fmt: skip
    return str(done.run_id)


def test_nothing_is_wrong_in_an_empty_platform(world: World) -> None:
    assert world.open() == set()
    assert world.tick() == "0 open, 0 new, 0 ended"


def test_a_failed_run_is_told_and_a_success_of_the_same_scope_ends_it(world: World) -> None:
    world.tick()
    run_id = run(world, compact, fails=True, **{"rag/source": "wiki"})
    run(world, build_partitions, fails=True)
    run(world, compact, fails=False, **{"rag/source": "handbook"})
    run(world, compact, fails=True, **{"dagster/will_retry": "true"})
    assert world.tick() == "1 open, 1 new, 0 ended"
    (alert,) = load_state(world.store).open.values()
    assert alert.finding.key == "failed_run/compact/wiki"
    assert "work: no space left on device" in alert.finding.body
    assert alert.finding.link == f"http://127.0.0.1:3000/runs/{run_id}"
    assert world.open() == {"failed_run/compact/wiki"}
    run(world, compact, fails=False, **{"rag/source": "wiki"})
    assert world.open() == set()
    assert [row["state"] for row in read_alerts(world.store, 9)] == ["resolved", "firing"]


def publish(world: World, *, why_not: str = "", fails: bool = False) -> None:
    """Run a job that is to publish the index, as a person (who gets a failure) or a condition asks for it."""

    @dg.asset(output_required=False)
    def published_index(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
        if fails:
            raise dg.Failure(description=why_not, allow_retries=False)
        if why_not:
            context.log.warning(why_not)
        else:
            yield dg.MaterializeResult()

    job = dg.define_asset_job("publish_index", selection=[published_index])
    defs = dg.Definitions(assets=[published_index], jobs=[job])
    defs.resolve_job_def("publish_index").execute_in_process(instance=world.instance, raise_on_error=False)


def test_publication_that_fails_is_told_as_such(world: World) -> None:
    world.tick()
    publish(world, why_not="Milvus is away", fails=True)
    assert world.open() == {"blocked_publication/index"}
    publish(world)
    assert world.open() == set()


def test_a_run_that_was_to_publish_and_did_not_is_no_success(world: World) -> None:
    world.tick()
    publish(world, why_not="not published: it was rolled back from", fails=True)
    assert world.open() == {"blocked_publication/index"}
    publish(world, why_not="not published: rag_1 is incomplete; ...")
    world.tick()
    (alert,) = load_state(world.store).open.values()
    assert alert.missing == 1, "it waits, and may be complete soon"
    Clock.current += timedelta(minutes=15)
    assert world.open() == {"blocked_publication/index"}
    assert "rag_1 is incomplete" in load_state(world.store).open["blocked_publication/index"].finding.body
    publish(world)
    assert world.open() == set()


def test_a_refusing_verdict_is_told(world: World) -> None:
    target = configured(world.config).collection
    verdict = {
        "verdict_id": "v", "collection": target, "judged_at": Clock.current, "passed": False,
        "reasons": json.dumps(["ANN recall@10 is 0.91"]), "search_params": "{}", "measures": "{}",
        "table_versions": "{}",
    }  # fmt: skip
    append(world.store, "verdicts", [verdict])
    assert world.open() == {"blocked_publication/index"}
    later = Clock.current + timedelta(seconds=1)
    append(
        world.store, "verdicts", [{**verdict, "verdict_id": "w", "passed": True, "reasons": "[]", "judged_at": later}]
    )
    assert world.open() == set()


def test_reject_rates_are_followed_by_the_newest_result(world: World) -> None:
    def result(outcome: str, partition: str = "wiki__01") -> None:
        row = {
            "result_id": f"{outcome}{Clock.current}", "table": "documents", "test": "reject_rate", "outcome": outcome,
            "partition_key": partition, "value": 0.5, "evaluated_at": Clock.current, "examples": "[]",
        }  # fmt: skip
        append(world.store, "quality_results", [row, {**row, "test": "row_count", "outcome": "error"}])

    result("error")
    result("error", partition="gone__01")
    assert world.open() == {"reject_jump/wiki__01"}
    result("pass")
    assert world.open() == set()
    result("warn")
    assert world.open() == {"reject_jump/wiki__01"}


def test_a_check_that_fails_is_told_until_it_passes(world: World) -> None:
    @dg.asset
    def index_partitions() -> None: ...

    clean = {"is": False}

    @dg.asset_check(asset=index_partitions, name="anti_entropy")
    def anti_entropy() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=clean["is"], description="1 of 2 partitions differ")

    def verify() -> None:
        defs = dg.Definitions(assets=[index_partitions], asset_checks=[anti_entropy])
        defs.resolve_implicit_global_asset_job_def().execute_in_process(instance=world.instance)

    verify()
    assert world.open() == {"index_dirt/index_partitions"}
    clean["is"] = True
    verify()
    assert world.open() == set()


def test_stuck_partitions_and_late_changes_are_told(world: World) -> None:
    changed = datetime.now(UTC) - timedelta(hours=2)
    change = {
        "change_id": "c", "source": "wiki", "partition_key": "wiki__01", "object_id": "0" * 32, "object_key": "a.md",
        "kind": "changed", "changed_at": changed, "basis": "source", "not_before": changed, "seen_at": changed,
        "look": 2, "counted": True,
    }  # fmt: skip
    failed = {
        "pass_id": "p", "run_id": "run-7", "partition_key": "wiki__01", "source": "wiki", "reason": "change",
        "listed_at": changed + timedelta(seconds=1), "verified_at": None, "outcome": "failed", "stage": "documents",
        "failure": "permanent", "message": "a.md is damaged", "objects": 1, "seconds": 1.0,
        "finished_at": changed + timedelta(seconds=2),
    }  # fmt: skip
    append_rows(world.store, "source_changes", [change])
    append_rows(world.store, "passes", [failed])
    assert world.open() >= {"stuck_partition/wiki__01", "freshness_hard_limit/wiki"}
    stuck = load_state(world.store).open["stuck_partition/wiki__01"].finding
    assert stuck.link.endswith("/runs/run-7")
    assert "a.md is damaged" in stuck.body
    verified = {"outcome": "ok", "verified_at": datetime.now(UTC), "stage": "", "failure": "", "message": ""}
    append_rows(world.store, "passes", [{**failed, "pass_id": "q", "listed_at": datetime.now(UTC), **verified}])
    assert not world.open() & {"stuck_partition/wiki__01", "freshness_hard_limit/wiki"}


def test_what_the_sensors_of_sources_leave_is_told(world: World) -> None:
    since = Clock.current.isoformat()
    problem = {"kind": "implausible_shrink", "message": "900 of 1,000 are gone", "since": since}
    write_text(world.store, reading.problem_path("wiki"), json.dumps(problem))
    write_text(world.store, f"{reading.poison_folder('handbook')}/m1.json", "{}")
    for source in ("wiki", "handbook"):  # of a source with a problem, that it was not looked at is nothing new
        write_text(world.store, reading.last_look_path(source), json.dumps({"started_at": since}))
    assert world.open() == {"listing_problem/wiki", "poison_event/handbook", "missed_look/handbook"}
    write_text(world.store, reading.problem_path("wiki"), "{}")
    Path(world.store.root, reading.poison_folder("handbook"), "m1.json").unlink()
    for source in ("wiki", "handbook"):
        write_text(world.store, reading.last_look_path(source), json.dumps({"started_at": "2999-01-01T00:00:00"}))
    assert world.open() == set()


def test_a_platform_that_was_off_begins_to_watch_anew(world: World) -> None:
    write_text(world.store, reading.last_look_path("wiki"), json.dumps({"started_at": Clock.current.isoformat()}))
    world.tick()
    Clock.current += timedelta(hours=8)
    assert world.tick() == "0 open, 0 new, 0 ended"
    Clock.current += timedelta(seconds=120)
    assert world.tick() == "1 open, 1 new, 0 ended"


def test_a_broken_rule_is_told_and_ends_no_alert_of_its_kind(world: World) -> None:
    problem = {"kind": "implausible_shrink", "message": "gone", "since": Clock.current.isoformat()}
    write_text(world.store, reading.problem_path("wiki"), json.dumps(problem))
    assert world.open() == {"listing_problem/wiki"}
    write_text(world.store, reading.problem_path("wiki"), "{")
    assert world.open() == {"listing_problem/wiki", "rule_failed/listing_problem", "rule_failed/missed_look"}
    Path(world.store.root, reading.problem_path("wiki")).unlink()
    assert world.open() == set()


def test_deliveries_that_fail_and_a_state_that_cannot_be_written_do_not_fail_the_sensor(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url = "http://127.0.0.1:9/secret-of-the-hook"
    other = World(tmp_path / "other", world.instance, webhook=WebhookConfig(url=url))
    write_text(other.store, f"{reading.poison_folder('wiki')}/m1.json", "{}")
    with caplog.at_level(logging.WARNING):
        said = other.tick()
    assert "1 open, 1 new, 0 ended; 1 not delivered by webhook (webhook at 127.0.0.1: ConnectError" in said
    assert "secret-of-the-hook" not in caplog.text + said + Path(other.store.root, STATE_PATH).read_text()
    assert "WARNING: 1 notifications of wiki" in caplog.text, "the log is told all the same"
    with AlertBook.locked(other.store, repeat_s=60):
        monkeypatch.setattr("rag_core.alerts.book._LOCK_WAIT_S", 0.0)
        assert other.tick().startswith("another evaluation is going on")
    monkeypatch.setattr("rag_core.alerts.book.save_state", _no_space)
    assert other.tick() == "alerts were not evaluated: OSError: no space left on device"


def _no_space(*_: object) -> None:
    raise OSError("no space left on device")


def test_a_table_that_cannot_be_written_is_written_later(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(world.store, f"{reading.poison_folder('wiki')}/m1.json", "{}")
    with monkeypatch.context() as patch:
        patch.setattr("rag_core.alerts.book.append_alerts", _no_space)
        assert world.tick() == "1 open, 1 new, 0 ended; the table of alerts was not written: OSError"
    assert world.tick() == "1 open, 0 new, 0 ended"
    assert [row["state"] for row in read_alerts(world.store, 9)] == ["firing"]


def test_the_sensor_is_on_if_automation_is(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    off = config.model_copy(update={"automation": AutomationConfig(enabled=False)})
    on, stopped = build_alert_sensor(config), build_alert_sensor(off)
    assert (on.default_status, stopped.default_status) == (
        dg.DefaultSensorStatus.RUNNING,
        dg.DefaultSensorStatus.STOPPED,
    )
    assert on.minimum_interval_seconds == 15
