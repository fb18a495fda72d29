"""The checks and the sensor of freshness objectives, on a real store and a real event log."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from rag_core.config import FilesSource, RagConfig, StoreConfig
from rag_core.freshness.measuring import Measured, measure
from rag_core.freshness.slo import check_name
from rag_core.tables.log import append_rows
from resources.platform import PlatformResource
from sensors.slo import ASSET, Told, build_slo_checks, build_slo_sensor, is_due
from tests.freshness_facts import START, change, passed

KEY = dg.AssetCheckKey(dg.AssetKey(ASSET), check_name("handbook"))


@pytest.fixture
def platform(tmp_path: Path) -> PlatformResource:
    (tmp_path / "docs").mkdir()
    path = tmp_path / "rag.yaml"
    path.write_text(
        f"store: {{root: {tmp_path}/store}}\n"
        "sources:\n"
        f"  - {{name: handbook, kind: files, root: {tmp_path}/docs}}\n"
        f"  - {{name: wiki, kind: files, root: {tmp_path}/docs}}\n"
    )
    return PlatformResource(config_path=str(path))


def ago(seconds: float) -> float:
    """Return a time so long ago as seconds after START, which is what rows are made with."""
    return (datetime.now(UTC) - START).total_seconds() - seconds


def tick(platform: PlatformResource, instance: dg.DagsterInstance, cursor: str | None) -> dg.SensorResult:
    context = dg.build_sensor_context(instance=instance, cursor=cursor, resources={"platform": platform})
    result = build_slo_sensor(platform.config)(context)
    assert isinstance(result, dg.SensorResult)
    return result


def told(result: dg.SensorResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {event.check_name: event for event in result.asset_events if isinstance(event, dg.AssetCheckEvaluation)}


@pytest.mark.slow
def test_the_sensor_tells_once_and_when_the_state_changes(platform: PlatformResource) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        first = tick(platform, instance, None)
        assert set(told(first)) == {"freshness__handbook", "freshness__wiki"}
        assert all(event.passed for event in told(first).values())
        assert told(tick(platform, instance, first.cursor)) == {}

        append_rows(platform.store, "source_changes", [change(1, ago(4_000))])
        second = tick(platform, instance, first.cursor)
        (event,) = told(second).values()
        assert (event.check_name, event.passed, event.severity) == (KEY.name, False, dg.AssetCheckSeverity.ERROR)
        assert "ago; at most 3,600 s are allowed" in (event.description or "")
        assert event.metadata["data_age_s"].value == pytest.approx(4_000, abs=60)
        assert told(tick(platform, instance, second.cursor)) == {}, "nothing new, and no five minutes"

        append_rows(platform.store, "passes", [passed(ago(3_990), ago(3_980))])
        third = tick(platform, instance, second.cursor)
        assert [(event.passed, event.metadata["p95_s"].value) for event in told(third).values()] == [
            (True, pytest.approx(20, abs=30))
        ]


@pytest.mark.slow
def test_a_source_that_left_the_configuration_leaves_the_cursor(platform: PlatformResource) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        cursor = tick(platform, instance, None).cursor or ""
        assert "gone" not in (tick(platform, instance, cursor.replace("wiki", "gone")).cursor or "")
        assert len(told(tick(platform, instance, '["of another version"]'))) == 2


def measured_at(platform: PlatformResource, now: datetime) -> Measured:
    return measure(platform.store, platform.config, "handbook", now=now)


def test_while_changes_wait_or_come_it_tells_every_five_minutes(platform: PlatformResource) -> None:
    now = datetime.now(UTC)
    append_rows(platform.store, "source_changes", [change(1, ago(30))])
    waiting = measured_at(platform, now)
    long_ago, lately = now - timedelta(minutes=5), now - timedelta(minutes=4.9)
    assert is_due(Told("ok", waiting.marker, long_ago), waiting)
    assert not is_due(Told("ok", waiting.marker, lately), waiting)
    assert is_due(Told("slow_burn", waiting.marker, lately), waiting)

    append_rows(platform.store, "passes", [passed(ago(20), ago(10))])
    done = measured_at(platform, now)
    assert done.marker != waiting.marker
    assert is_due(Told("ok", waiting.marker, long_ago), done)
    assert not is_due(Told("ok", done.marker, long_ago), done), "nothing happens: nothing is told, however long"


@pytest.mark.slow
def test_the_check_runs_by_hand_with_figures_and_a_picture(platform: PlatformResource) -> None:
    append_rows(platform.store, "source_changes", [change(1, ago(900)), change(2, ago(100), object_key="new.md")])
    append_rows(platform.store, "passes", [passed(ago(890), ago(880))])

    @dg.asset
    def index_partitions() -> None: ...

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [index_partitions, *build_slo_checks(platform.config)],
            selection=dg.AssetSelection.checks(KEY),
            resources={"platform": platform},
            instance=instance,
        )
        (evaluation,) = result.get_asset_check_evaluations()
    assert (evaluation.check_name, evaluation.passed) == (KEY.name, True)
    metadata: dict[str, Any] = {name: value.value for name, value in evaluation.metadata.items()}
    assert (metadata["state"], metadata["changes"], metadata["pending"], metadata["attained"]) == ("ok", 1, 1, 1.0)
    assert metadata["oldest_pending"].startswith("new.md, changed 20")
    assert metadata["objective"] == "99 % of changes searchable within 300 s, over 30 days"
    assert metadata["plot"].startswith("![Latency, data age, error budget](data:image/webp;base64,UklGR")
    assert len(metadata["plot"]) < 14_000, "the event log keeps it"
    assert {f"burn_{window}" for window in ("5m", "30m", "1h", "6h")} <= metadata.keys()


def test_nothing_starts_by_itself_unless_it_is_to(tmp_path: Path) -> None:
    source = FilesSource(name="handbook", kind="files", root=tmp_path)
    config = RagConfig(store=StoreConfig(root=str(tmp_path)), sources=(source,))
    stopped = config.model_copy(update={"automation": config.automation.model_copy(update={"enabled": False})})
    assert build_slo_sensor(config).default_status is dg.DefaultSensorStatus.RUNNING
    assert build_slo_sensor(stopped).default_status is dg.DefaultSensorStatus.STOPPED
