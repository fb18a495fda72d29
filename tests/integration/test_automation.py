"""Conditions and retention on a store and a Dagster instance that the real pipeline wrote."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from definitions import build_defs
from rag_assets.upkeep import RETENTION_JOB
from rag_core.partitions import all_partition_keys
from tests.integration.pipeline_helpers import Platform, search_json

pytestmark = [pytest.mark.milvus, pytest.mark.slow]

STAGES = ("chunks", "embeddings", "index_partitions")
PUBLICATION = ("retrieval_eval", "index_verdict", "published_index")


class Ticks:
    """Evaluates all conditions, a minute apart."""

    def __init__(self, defs: dg.Definitions, instance: dg.DagsterInstance) -> None:
        self._defs, self._instance = defs, instance
        self._now, self._cursor = datetime.now(UTC), None

    def next(self) -> dict[str, set[Any]]:
        """Return what is asked for: asset -> partitions."""
        self._now += timedelta(seconds=60)
        result = dg.evaluate_automation_conditions(
            self._defs, self._instance, cursor=self._cursor, evaluation_time=self._now
        )
        self._cursor = result.cursor
        names = ("documents", *STAGES, *PUBLICATION)
        found = {name: set(result.get_requested_partitions(dg.AssetKey(name))) for name in names}
        return {name: keys for name, keys in found.items() if keys}


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    docs = tmp_path / "docs"
    docs.mkdir()
    for name in ("apples", "pears", "plums", "cherries"):
        (docs / f"{name}.md").write_text(f"# {name}\n\nAll that is known of {name} is written here.\n")
    source = {"name": "a", "kind": "files", "root": str(docs)}
    platform = Platform(tmp_path / "platform", [source], {"buckets": 4})
    yield platform
    platform.stop()


def test_what_the_pipeline_writes_flows_on_once(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    platform.run()
    monkeypatch.setenv("RAG_CONFIG", str(platform.config_path))
    defs = build_defs(config_path=platform.config_path)
    with dg.DagsterInstance.from_config(str(platform.root / "data" / "dagster")) as instance:
        ticks = Ticks(defs, instance)
        assert ticks.next() == {}
        changed = Path(platform.sources[0]["root"]) / "apples.md"
        changed.write_text("# Apples\n\nApples are stored in the cellar of the north building.\n")

        # by a packed run: stages ask for nothing, publication follows (rag run has done it already, by hand)
        platform.run()
        assert ticks.next() == {name: {None} for name in PUBLICATION}
        assert ticks.next() == {}

        # documents alone, each partition in a run: the one that changed flows on
        changed.write_text("# Apples\n\nApples are stored in the attic of the south building.\n")
        job = defs.resolve_job_def("build_documents")
        for key in all_partition_keys(platform.config):
            assert job.execute_in_process(instance=instance, partition_key=key).success
        asked = ticks.next()
        assert len(asked["chunks"]) == 1
        assert asked == dict.fromkeys(STAGES, asked["chunks"])
        assert ticks.next() == {}


def test_retention_leaves_a_platform_that_works(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    platform.run()
    before = platform.tables()
    dead = platform.root / "data" / "work" / "embedding" / "dead"
    dead.mkdir(parents=True)
    (dead / "items.parquet").write_text("x")
    long_ago = (datetime.now(UTC) - timedelta(days=30)).timestamp()
    os.utime(dead / "items.parquet", (long_ago, long_ago))

    monkeypatch.setenv("RAG_CONFIG", str(platform.config_path))
    job = build_defs(config_path=platform.config_path).resolve_job_def(RETENTION_JOB)
    with dg.DagsterInstance.from_config(str(platform.root / "data" / "dagster")) as instance:
        assert job.execute_in_process(instance=instance).success

    assert not dead.exists()
    assert platform.tables() == before
    assert search_json(platform, "Where are pears written about?", "hybrid")
    again = platform.run()
    assert (again["parsed"], again["embedded"], again["upserted"], again["repaired"]) == (0, 0, 0, 0)
