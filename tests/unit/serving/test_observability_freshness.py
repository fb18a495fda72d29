"""How the sources stand, from the store to metrics and to the route."""

import asyncio
import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rag_core.config import RagConfig
from rag_core.config_loader import load_config
from rag_core.tables.log import append_rows
from rag_core.tables.store import Store
from serving.observability import freshness
from serving.observability.freshness import FreshnessWatch
from serving.observability.metrics import Metrics
from tests.freshness_facts import START, change


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def config(tmp_path: Path) -> RagConfig:
    path = tmp_path / "rag.yaml"
    path.write_text(
        f"store: {{root: {tmp_path / 'store'}}}\n"
        "sources:\n"
        f"  - {{name: handbook, kind: files, root: {tmp_path}, objective: {{within_s: 20, hard_limit_s: 60}}}}\n"
        f"  - {{name: wiki, kind: files, root: {tmp_path}}}\n"
    )
    return load_config(path, {}).config


@pytest.mark.anyio
async def test_age_and_state_of_each_source(config: RagConfig) -> None:
    store, metrics = Store.of(config.store), Metrics()
    now = (datetime.now(UTC) - START).total_seconds()
    append_rows(store, "source_changes", [change(1, now - 100)])
    watch = FreshnessWatch(store, config, metrics)
    assert await watch.standings() == {}
    await watch.look()
    standings = await watch.standings()
    assert standings["wiki"] == {"state": "ok", "oldest_pending_age_s": None}
    assert standings["handbook"]["state"] == "hard_limit"
    age_s = standings["handbook"]["oldest_pending_age_s"]
    assert age_s is not None
    assert age_s >= 100
    value = metrics.registry.get_sample_value
    assert value("rag_source_data_age_seconds", {"source": "handbook"}) == age_s
    assert value("rag_source_data_age_seconds", {"source": "wiki"}) == 0
    assert value("rag_source_state", {"source": "handbook", "state": "hard_limit"}) == 1
    assert value("rag_source_state", {"source": "handbook", "state": "ok"}) == 0
    assert value("rag_source_state", {"source": "wiki", "state": "ok"}) == 1


@pytest.mark.anyio
async def test_a_failure_keeps_what_is_known_and_is_logged_once(
    config: RagConfig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING, logger="serving")
    watch = FreshnessWatch(Store.of(config.store), config, Metrics())
    await watch.look()
    known = await watch.standings()
    measure = freshness.measure

    def fail(*_args: object, **_options: object) -> None:
        raise OSError("the store is gone")

    monkeypatch.setattr(freshness, "measure", fail)
    for _ in range(3):
        await watch.look()
    assert len(caplog.records) == 1
    assert await watch.standings() == known
    monkeypatch.setattr(freshness, "measure", measure)
    await watch.look()
    monkeypatch.setattr(freshness, "measure", fail)
    await watch.look()
    assert len(caplog.records) == 2  # a new one


@pytest.mark.anyio
async def test_it_measures_when_started_and_stops(config: RagConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = FreshnessWatch(Store.of(config.store), config, Metrics())
    looked = asyncio.Event()
    look = watch.look

    async def noted() -> None:
        await look()
        looked.set()

    monkeypatch.setattr(watch, "look", noted)
    await watch.start()
    await looked.wait()
    assert set(await watch.standings()) == {"handbook", "wiki"}
    await watch.stop()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "freshness"]
