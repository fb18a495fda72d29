"""What the conditions of assets ask for, evaluated by Dagster against a real (in-memory) instance."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from definitions import build_defs
from rag_assets.automation import AUTOMATED_TAG, PACKED_TAG, cron
from rag_core.config_loader import load_config
from rag_core.errors import ConfigError

STAGES = ("documents", "chunks", "embeddings", "index_partitions")
PUBLICATION = ("retrieval_eval", "index_verdict", "published_index")
VERSION_TAG = "dagster/data_version"


def _config(folder: Path, **settings: Any) -> Path:
    (folder / "docs").mkdir(exist_ok=True)
    path = folder / "rag.yaml"
    source = {"name": "a", "kind": "files", "root": "docs"}
    path.write_text(yaml.safe_dump({"store": {"root": "data"}, "buckets": 4, "sources": [source], **settings}))
    return path


class World:
    """A code location, an instance, and the ticks of an automation sensor."""

    def __init__(self, defs: dg.Definitions, instance: dg.DagsterInstance) -> None:
        self.defs, self.instance = defs, instance
        self.now = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)
        self.cursor: Any = None
        self.checks: set[str] = set()

    def tick(self, seconds: int = 1) -> dict[str, set[str | None]]:
        """Evaluate, and return what is asked for: asset -> partitions; checks are in `self.checks`."""
        self.now += timedelta(seconds=seconds)
        result = dg.evaluate_automation_conditions(
            self.defs, self.instance, cursor=self.cursor, evaluation_time=self.now
        )
        self.cursor = result.cursor
        asked = {one for one in result.results if not one.true_subset.is_empty}
        self.checks = {one.key.to_user_string() for one in asked if isinstance(one.key, dg.AssetCheckKey)}
        names = (*STAGES, *PUBLICATION)
        found = {name: set(result.get_requested_partitions(dg.AssetKey(name))) for name in names}
        return {name: keys for name, keys in found.items() if keys}

    def log(self, *events: tuple[str, str | None, str], tags: Mapping[str, str] | None = None) -> None:
        """Log materializations as (asset, partition, data version), in one run with these tags."""

        @dg.op
        def log_all(context: dg.OpExecutionContext) -> None:
            for asset, partition, version in events:
                context.log_event(dg.AssetMaterialization(asset, partition=partition, tags={VERSION_TAG: version}))

        @dg.job
        def a_job() -> None:
            log_all()

        assert a_job.execute_in_process(instance=self.instance, tags=dict(tags or {})).success


@pytest.fixture(scope="module")
def defs(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    return build_defs(config_path=_config(tmp_path_factory.mktemp("automation")))


@pytest.fixture
def world(defs: dg.Definitions) -> Iterator[World]:
    with dg.DagsterInstance.ephemeral() as instance:
        world = World(defs, instance)
        world.log(("documents", "a__00", "0"))  # an instance that was never used knows no "before"
        assert world.tick() == {}
        yield world


@pytest.mark.slow
def test_changed_documents_flow_on_in_one_tick(world: World) -> None:
    world.log(("documents", "a__01", "1"), ("documents", "a__03", "1"))
    keys = {"a__01", "a__03"}
    assert world.tick() == {"chunks": keys, "embeddings": keys, "index_partitions": keys}
    assert world.tick() == {}, "what was asked for is not asked for again"


@pytest.mark.slow
def test_unchanged_documents_do_not(world: World) -> None:
    world.log(("documents", "a__00", "0"))
    assert world.tick() == {}


@pytest.mark.slow
def test_changed_chunks_flow_on(world: World) -> None:
    world.log(("chunks", "a__01", "1"))
    assert world.tick() == {"embeddings": {"a__01"}, "index_partitions": {"a__01"}}


@pytest.mark.slow
def test_all_four_at_once_ask_for_nothing(world: World) -> None:
    events = [(stage, key, "1") for stage in STAGES for key in ("a__00", "a__01", "a__02", "a__03")]
    world.log(*events)
    assert world.tick() == {}
    assert world.tick() == {}


@pytest.mark.slow
def test_a_packed_run_asks_for_nothing_even_if_a_tick_comes_in_between(world: World) -> None:
    tags = {PACKED_TAG: "a__01"}
    world.log(("documents", "a__01", "1"), tags=tags)
    assert world.tick() == {}
    world.log(*[(stage, "a__01", "1") for stage in STAGES[1:]], tags=tags)
    assert world.tick() == {}


@pytest.mark.slow
def test_documents_after_chunks_in_the_same_tick_are_not_lost(world: World) -> None:
    world.log(("chunks", "a__01", "1"), ("embeddings", "a__01", "1"), ("index_partitions", "a__01", "1"))
    world.log(("documents", "a__01", "1"))
    assert world.tick() == {name: {"a__01"} for name in STAGES[1:]}


@pytest.mark.slow
def test_documents_that_change_while_an_automatic_run_is_under_way_are_not_lost(world: World) -> None:
    world.log(("documents", "a__01", "1"))
    assert world.tick() == {name: {"a__01"} for name in STAGES[1:]}
    world.log(("documents", "a__01", "2"))
    world.log(*[(stage, "a__01", "1") for stage in STAGES[1:]], tags={AUTOMATED_TAG: "true"})
    assert world.tick() == {name: {"a__01"} for name in STAGES[1:]}
    world.log(*[(stage, "a__01", "2") for stage in STAGES[1:]], tags={AUTOMATED_TAG: "true"})
    assert world.tick() == {}


@pytest.mark.slow
def test_stages_that_ran_by_hand_are_not_asked_for_again(world: World) -> None:
    world.log(*[(stage, "a__02", "1") for stage in STAGES])
    assert world.tick() == {}
    world.log(("documents", "a__02", "2"))
    assert world.tick() == {name: {"a__02"} for name in STAGES[1:]}


@pytest.mark.slow
def test_checks_and_publication_come_together_at_the_next_tick_of_the_cron(world: World) -> None:
    world.log(*[(stage, "a__01", "1") for stage in STAGES])
    assert world.tick(seconds=5) == {}
    assert world.checks == set()
    assert world.tick(seconds=30) == {name: {None} for name in PUBLICATION}
    tables = {name.split(":")[0] for name in world.checks}
    assert tables == {*STAGES, *PUBLICATION}
    assert "index_partitions:anti_entropy" not in world.checks
    world.log(*[(name, None, "1") for name in PUBLICATION], tags={AUTOMATED_TAG: "true"})
    for _ in range(3):
        assert world.tick(seconds=60) == {}
        assert world.checks == set()


@pytest.mark.slow
def test_only_what_follows_the_changed_table_is_checked(world: World) -> None:
    world.tick(seconds=60)
    world.log(("documents", "a__01", "1"), tags={PACKED_TAG: "a__01"})
    assert world.tick(seconds=60) == {}
    assert {name.split(":")[0] for name in world.checks} == {"documents"}


@pytest.mark.slow
def test_an_update_between_request_and_tick_is_published_at_the_next(world: World) -> None:
    world.log(("index_partitions", "a__01", "1"))
    assert "published_index" in world.tick(seconds=60)
    world.log(("index_partitions", "a__01", "2"))
    assert "published_index" not in world.tick(seconds=1)
    assert "published_index" in world.tick(seconds=60)


@pytest.mark.slow
def test_a_verdict_by_hand_is_followed_once(world: World) -> None:
    world.log(*[(name, None, "1") for name in PUBLICATION[:2]])
    assert "published_index" in world.tick(seconds=60)
    world.log(*[(name, None, "1") for name in PUBLICATION], tags={AUTOMATED_TAG: "true"})
    assert [world.tick(seconds=60) for _ in range(3)] == [{}, {}, {}]


@pytest.mark.slow
def test_a_run_on_publication_by_hand_leaves_later_updates_due(world: World) -> None:
    world.log(("index_partitions", "a__01", "1"), *[(name, None, "1") for name in PUBLICATION])
    assert set(world.tick(seconds=60)) == set(PUBLICATION)


def test_every_asset_has_a_freshness_policy(world: World) -> None:
    graph = world.defs.resolve_asset_graph()
    policies = {key.to_user_string() for key in graph.get_all_asset_keys() if graph.get(key).freshness_policy}
    assert policies == {*STAGES, "published_index"}


def test_every_check_and_asset_but_documents_is_automated(world: World) -> None:
    graph = world.defs.resolve_asset_graph()
    checks = [
        key for key in graph.asset_check_keys if not key.name.startswith("freshness__")
    ]  # a sensor evaluates them
    keys = [*graph.get_all_asset_keys(), *checks]
    assert {key.to_user_string() for key in keys if graph.get(key).automation_condition is None} == {"documents"}


def test_the_tag_of_packed_runs_is_that_of_the_job() -> None:
    from rag_assets.packed import PARTITIONS_TAG

    assert PACKED_TAG == PARTITIONS_TAG


@pytest.mark.parametrize("value", ["", "often", "* * * *", "61 * * * *", "* * * * * *"])
def test_a_wrong_cron_names_its_key(tmp_path: Path, value: str) -> None:
    config = load_config(_config(tmp_path, automation={"publish_cron": value}), check_files=False).config
    with pytest.raises(ConfigError, match=r"automation\.publish_cron .* expected five fields"):
        cron(config, "publish_cron")
