"""dagster.yaml as rag writes it, what it leaves alone, and the limits of the pools."""

from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.run_coordinator.queued_run_coordinator import QueuedRunCoordinator
from hypothesis import given
from hypothesis import strategies as st

from rag_assets.instance import (
    PROCESS_TAG,
    dagster_home,
    fail_dead_runs,
    pool_limits,
    process_tag,
    set_pool_limits,
)
from rag_assets.instance_settings import default_settings, is_ours, lacks_launcher, write_settings
from rag_assets.launcher import WarmRunLauncher
from rag_core.config import RagConfig
from rag_core.config_freshness import RunConfig
from rag_core.tables.store import Store

# As the first version wrote it.
EARLIER = """\
# Written by rag on first use; yours to change. https://docs.dagster.io/deployment/oss/dagster-yaml
telemetry:
  enabled: false
nux:
  # No pop-up that asks for an e-mail address.
  enabled: false
concurrency:
  pools:
    # Milvus Lite takes one writer at a time, and one embedding worker fills the machine.
    default_limit: 1
    granularity: op
run_monitoring:
  # A run whose process was killed is marked as failed, and gives its places in the pools back.
  enabled: true
  poll_interval_seconds: 20
  free_slots_after_run_end_seconds: 20
"""


@pytest.fixture(autouse=True)
def _no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def config(root: Path, **sections: object) -> RagConfig:
    source = {"name": "handbook", "kind": "files", "root": str(root)}
    return RagConfig.model_validate({"store": {"root": str(root / "data")}, "sources": [source], **sections})


@pytest.mark.slow
@pytest.mark.parametrize(("concurrent", "backfills"), [(1, 1), (2, 1), (5, 4)])
def test_dagster_takes_every_setting(tmp_path: Path, concurrent: int, backfills: int) -> None:
    settings = config(tmp_path, run={"concurrent_runs": concurrent})
    home = dagster_home(Store.of(settings.store), settings)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert isinstance(instance.run_launcher, WarmRunLauncher)
        assert isinstance(instance.run_coordinator, QueuedRunCoordinator)
        assert instance.run_coordinator.dequeue_interval_seconds == 1
        queue = instance.get_concurrency_config().run_queue_config
        assert queue is not None
        assert queue.max_concurrent_runs == concurrent + 1
        assert {(limit["key"], limit["limit"]) for limit in queue.tag_concurrency_limits} == {
            ("rag/reason", backfills),
            ("dagster/backfill", backfills),
        }
        assert instance.run_monitoring_enabled
        assert instance.run_monitoring_poll_interval_seconds == 5
        assert instance.freshness_enabled
        assert instance.auto_materialize_use_sensors
        assert not instance.telemetry_enabled
        assert "FRESHNESS_DAEMON" in instance.get_required_daemon_types()


def test_an_unchanged_file_follows_rag_yaml_and_a_changed_one_stays(tmp_path: Path) -> None:
    path = write_settings(tmp_path, RunConfig(concurrent_runs=2))
    assert path.read_text() == default_settings(RunConfig(concurrent_runs=2))
    write_settings(tmp_path, RunConfig(concurrent_runs=3))
    assert yaml.safe_load(path.read_text())["concurrency"]["runs"]["max_concurrent_runs"] == 4
    write_settings(tmp_path, None)
    assert yaml.safe_load(path.read_text())["concurrency"]["runs"]["max_concurrent_runs"] == 4
    changed = path.read_text().replace("poll_interval_seconds: 5", "poll_interval_seconds: 50")
    path.write_text(changed)
    write_settings(tmp_path, RunConfig(concurrent_runs=4))
    assert path.read_text() == changed
    assert not lacks_launcher(tmp_path)


def test_an_earlier_default_is_replaced_and_another_is_not(tmp_path: Path) -> None:
    path = tmp_path / "dagster.yaml"
    path.write_text(EARLIER)
    assert lacks_launcher(tmp_path)
    write_settings(tmp_path, RunConfig())
    assert not lacks_launcher(tmp_path)
    own = EARLIER.replace("poll_interval_seconds: 20", "poll_interval_seconds: 30")
    path.write_text(own)
    write_settings(tmp_path, RunConfig())
    assert path.read_text() == own
    assert lacks_launcher(tmp_path)


@given(st.integers(1, 50), st.data())
def test_any_edit_makes_the_file_the_users(concurrent: int, data: st.DataObject) -> None:
    text = default_settings(RunConfig(concurrent_runs=concurrent))
    assert is_ours(text)
    at = data.draw(st.integers(0, len(text) - 1))
    put = data.draw(st.sampled_from(["", "#", "x", "\n", " "]))
    edited = text[:at] + put + text[at + (data.draw(st.booleans()) if put else 1) :]
    assert is_ours(edited) == (edited == text)


def test_a_home_of_the_environment_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "own"))
    assert dagster_home(Store(str(tmp_path)), config(tmp_path)) == tmp_path / "own"
    assert not (tmp_path / "own").exists()


@pytest.mark.slow
def test_pools_follow_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2,5")
    assert pool_limits(config(tmp_path)) == {"embedding": 3, "milvus_writes": 1}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert pool_limits(config(tmp_path)) == {"embedding": 1, "milvus_writes": 1}
    server = config(tmp_path, index={"uri": "http://milvus:19530"}, embedding={"workers": 4})
    assert pool_limits(server) == {"embedding": 4, "milvus_writes": 8}
    home = dagster_home(Store.of(server.store), server)
    with dg.DagsterInstance.from_config(str(home)) as instance:

        def limits() -> dict[str, int]:
            return {limit.name: limit.limit for limit in instance.event_log_storage.get_pool_limits()}

        set_pool_limits(instance, server)
        assert limits() == {"embedding": 4, "milvus_writes": 8}
        set_pool_limits(instance, config(tmp_path))
        assert limits() == {"embedding": 1, "milvus_writes": 1}
        assert instance.event_log_storage.get_concurrency_info("embedding").slot_count == 1


@pytest.mark.slow
def test_a_run_without_a_process_is_not_closed(tmp_path: Path) -> None:
    settings = config(tmp_path)

    @dg.job
    def build_index() -> None:
        pass

    with dg.DagsterInstance.from_config(str(dagster_home(Store.of(settings.store), settings))) as instance:
        instance.create_run_for_job(build_index, status=dg.DagsterRunStatus.STARTED)
        assert fail_dead_runs(instance) == []


@pytest.mark.slow
@pytest.mark.parametrize("status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED])
def test_a_run_whose_process_is_gone_is_closed_wherever_it_was(tmp_path: Path, status: dg.DagsterRunStatus) -> None:
    settings = config(tmp_path)

    @dg.job
    def build_index() -> None:
        pass

    alive, gone = process_tag(), f"{process_tag()}0"  # another process had the number, at another time
    with dg.DagsterInstance.from_config(str(dagster_home(Store.of(settings.store), settings))) as instance:
        instance.create_run_for_job(build_index, status=status, tags={PROCESS_TAG: alive})
        dead = instance.create_run_for_job(build_index, status=status, tags={PROCESS_TAG: gone})
        assert fail_dead_runs(instance) == [dead.run_id]
        run = instance.get_run_by_id(dead.run_id)
        assert run is not None
        assert run.status == dg.DagsterRunStatus.FAILURE
