"""When Dagster materializes assets and runs checks by itself: the conditions, built from Dagster's own.

Source changes do not come this way: the sensors of the sources ask for packed runs, which do all four stages. The
conditions of the stages are for what came in otherwise (one asset materialized by hand, a backfill of `documents`
only), and those of checks and publication follow every way.

A condition with a time is compared by it. Dagster keeps that time through `since` and through the conditions on
dependencies, and loses it in `&`, `|` and `~`, where a tie within one tick then goes to the reset and a change is lost.
So the conditions here are built of `since`, and `&` only joins what is already decided.
"""

import operator
from datetime import timedelta
from functools import reduce
from typing import Any, Final

import dagster as dg
from dagster import AutomationCondition as On

from rag_core.config import RagConfig
from rag_core.errors import ConfigError

PACKED_TAG: Final = "rag/partitions"
"""Tag of packed runs: `rag_assets.packed.PARTITIONS_TAG`, which the assets that it is made of cannot import."""

AUTOMATED_TAG: Final = "dagster/from_automation_condition"
"""Tag that Dagster puts on runs which a condition asked for."""

CHECKS_FIRST: Final = {"dagster/priority": "1"}
"""Op tags of checks: where steps wait for a process, those of the tables come before the verdict, which asks for their
results and takes what was found already."""

FRESHNESS: Final = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=36), warn_window=timedelta(hours=26))
"""The coarse signal that the UI knows: the nightly reconciliation materializes every asset. Data age is measured by
`rag_core.freshness`."""

STAGES: Final = ("documents", "chunks", "embeddings", "index_partitions")
PUBLISHED: Final = "published_index"

CRON_KEYS: Final = ("publish_cron", "reconcile_cron", "retention_cron", "backup_cron")

# Dagster types conditions by what they are for, asset or check; those here are for both.
Condition = Any


def cron(config: RagConfig, key: str) -> str:
    """Return a cron string of `automation`.

    Raises:
        ConfigError: It is none; names the key.
    """
    value = str(getattr(config.automation, key))
    # Dagster would take several words such as `@daily` and six fields as well; its UI shows those of five.
    if len(value.split()) != 5 or not _is_valid(value):
        raise ConfigError(
            f"automation.{key} is {value!r}; expected five fields, minute hour day month weekday, such as '0 2 * * *'"
        )
    return value


def _is_valid(value: str) -> bool:
    try:
        dg.ScheduleDefinition(name="any", cron_schedule=value, job_name="any")
    except dg.DagsterInvalidDefinitionError:
        return False
    return True


def stage_condition() -> Condition:
    """Return the condition of `chunks`, `embeddings` and `index_partitions`.

    A partition is asked for when the data version of one it is made from changed, since it was last asked for and since
    it was last materialized by hand, and no stage of the partition is under way. All stages behind are asked for with
    it, so they share runs; each does only what differs. Packed runs do all stages by themselves, and so do the runs
    that are asked for here: what they change asks for nothing.
    """
    changed = On.any_deps_match(
        _only(On.newly_updated(), ~On.data_version_changed() | _all_by(PACKED_TAG, AUTOMATED_TAG))
    )
    # What a condition asked for counts from when it was asked for: upstream may change while it is under way.
    by_hand = _only(On.newly_updated(), ~(On.newly_updated() & ~_all_by(AUTOMATED_TAG)))
    due = (changed.since(On.newly_requested()) & changed.since(by_hand)).with_label("upstream changed")
    idle: Condition = ~On.in_progress()
    for stage in STAGES:
        idle = idle & On.asset_matches(stage, ~On.in_progress())
    asked = On.any_deps_match(On.will_be_requested()).with_label("upstream is asked for")
    return ((due | asked) & idle).with_label("a changed data version flows on")


def publication_condition(config: RagConfig, *, behind: str | None = None, last: bool = False) -> Condition:
    """Return the condition of checks, of the verdict and of publication: at a tick of `automation.publish_cron`.

    All of them are asked for at one tick and are not partitioned, so they are one run. The next one waits for its end.

    Args:
        config: Names the ticks.
        behind: An unpartitioned asset that this one or this check depends on; asked for together.
        last: Whether it is what a run ends with (`published_index`).
    """
    stages = dg.AssetSelection.assets(*STAGES)
    tables = On.any_deps_match(On.newly_updated()).allow(stages)
    # A run that is asked for here does all that is not partitioned: what it updates asks for nothing.
    rest = On.any_deps_match(On.newly_updated()).ignore(stages)
    by_hand = On.any_deps_match(On.newly_updated() & ~_all_by(AUTOMATED_TAG)).ignore(stages)
    updated: Condition = tables.since(On.newly_requested()) | _only(rest, ~by_hand).since(On.newly_requested())
    tick = On.cron_tick_passed(cron(config, "publish_cron"))
    # An update by hand does not count as done: what it saw may be older than the newest update.
    due: Condition = (
        (updated.with_label("upstream updated") & tick).since(On.newly_requested()).with_label("due since a tick")
    )
    if behind is not None:
        due = due | On.any_deps_match(On.will_be_requested()).allow(dg.AssetSelection.assets(behind))
    idle: Condition = ~On.in_progress()
    if not last:
        idle = idle & On.asset_matches(PUBLISHED, ~On.in_progress())
    return (due & idle).with_label("tested and published at ticks")


def never() -> Condition:
    """Return the condition of a check that only its own job runs.

    Dagster takes a check without any condition along whenever it asks for its asset.
    """
    return (On.initial_evaluation() & ~On.initial_evaluation()).with_label("only by its own job")


def _only(trigger: Condition, unless: Condition) -> Condition:
    """Return `trigger & ~unless` of this very tick, with the trigger's time; `unless` must hold where there is none."""
    return trigger.since(unless)


def _all_by(*tags: str) -> Condition:
    """Return what was updated in this tick by runs with one of the tags only."""
    first, *others = (On.all_new_updates_have_run_tags(tag_keys={tag}) for tag in tags)
    return reduce(operator.or_, others, first)
