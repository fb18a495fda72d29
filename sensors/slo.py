"""Freshness objectives in the Dagster UI: a check for each source, and the sensor that evaluates them all by itself.

How a source stands is decided in `rag_core.freshness`; here it becomes evaluations of checks.
"""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import dagster as dg
from pydantic import TypeAdapter, ValidationError

from rag_assets.materialize import failures_by_class
from rag_core.config import RagConfig
from rag_core.freshness.measuring import Measured, measure
from rag_core.freshness.plots import history_webp
from rag_core.freshness.slo import URGENT, Standing, check_name
from resources.platform import PlatformResource

ASSET: Final = "index_partitions"
SLO_SENSOR: Final = "freshness_objectives"

_AGAIN: Final = timedelta(minutes=5)


@dataclass(frozen=True)
class Told:
    """What the sensor last told of a source: its state, what the tables held, and when."""

    state: str
    marker: str
    at: datetime


_CURSOR: Final = TypeAdapter(dict[str, Told])


def build_slo_checks(config: RagConfig) -> Sequence[dg.AssetChecksDefinition]:
    """Make the checks of all sources; one op, which costs little, evaluates those that are asked for."""
    sources = {check_name(source.name): source for source in config.sources}

    @dg.multi_asset_check(
        name="freshness",
        specs=[
            dg.AssetCheckSpec(name=name, asset=ASSET, description=_promise(config, source.name))
            for name, source in sources.items()
        ],
        can_subset=True,
        description="How fast changes of the sources became searchable, compared with what is promised.",
    )
    def freshness(context: dg.AssetCheckExecutionContext, platform: PlatformResource) -> Iterator[dg.AssetCheckResult]:
        names = {key.name for key in context.op_execution_context.selected_asset_check_keys}
        now = datetime.now(UTC)
        for name, source in sources.items():
            if name in names:
                with failures_by_class():
                    measured = measure(platform.store, platform.config, source.name, now=now)
                yield dg.AssetCheckResult(asset_key=ASSET, check_name=name, **_evaluated(measured))

    return [freshness]


def build_slo_sensor(config: RagConfig) -> dg.SensorDefinition:
    """Make the sensor that evaluates all sources.

    It starts nothing. A source is told of when its state is another than before, and otherwise at most every five
    minutes, while changes come in or wait: an event log that gets an event at each tick is no use, and grows.
    """

    @dg.sensor(
        name=SLO_SENSOR,
        minimum_interval_seconds=config.freshness.evaluate_s,
        default_status=dg.DefaultSensorStatus.RUNNING if config.automation.enabled else dg.DefaultSensorStatus.STOPPED,
        description="Evaluates the freshness objectives of all sources; shown as checks of index_partitions.",
    )
    def freshness_objectives(context: dg.SensorEvaluationContext, platform: PlatformResource) -> dg.SensorResult:
        now = datetime.now(UTC)
        told, events = _remembered(context.cursor), []
        told = {name: one for name, one in told.items() if name in {source.name for source in config.sources}}
        standings = []
        for source in config.sources:
            measured = measure(platform.store, platform.config, source.name, now=now)
            standings.append(measured.standing)
            if is_due(told.get(source.name), measured):
                told[source.name] = Told(measured.standing.state, measured.marker, now)
                name = check_name(source.name)
                events.append(dg.AssetCheckEvaluation(dg.AssetKey(ASSET), name, **_evaluated(measured)))
        return dg.SensorResult(
            asset_events=events,
            cursor=_CURSOR.dump_json(told).decode(),
            skip_reason=dg.SkipReason("; ".join(f"{one.source}: {summary(one)}" for one in standings)),
        )

    return freshness_objectives


def is_due(told: Told | None, measured: Measured) -> bool:
    """Say whether a source is to be told of, by what was told last."""
    standing = measured.standing
    if told is None or told.state != standing.state:
        return True
    return standing.now - told.at >= _AGAIN and (standing.pending > 0 or told.marker != measured.marker)


def summary(standing: Standing) -> str:
    """Say in a line how a source stands."""
    if standing.reasons:
        return f"{standing.state}: {'; '.join(standing.reasons)}"
    waiting = f"{standing.pending:,} pending, the oldest for {standing.data_age_s:,.0f} s" if standing.pending else ""
    if not standing.counted:
        return waiting or f"no change in {standing.objective.window_days} days"
    within, days = standing.objective.within_s, standing.objective.window_days
    return f"{standing.good:,} of {standing.counted:,} changes in {days} days within {within:g} s" + (
        f"; {waiting}" if waiting else ""
    )


def _evaluated(measured: Measured) -> dict[str, Any]:
    """Return what the evaluation of a check is made of. Figures of the same name become a plot in the UI."""
    standing = measured.standing
    objective = standing.objective
    figures: dict[str, float | None] = {
        "attained": standing.attained,
        "budget_left": standing.budget_left,
        **{f"burn_{window}": rate for window, rate in standing.burn.items()},
        "data_age_s": standing.data_age_s,
        "p50_s": standing.p50_s,
        "p95_s": standing.p95_s,
        "max_s": standing.max_s,
        "changes": standing.counted,
        "late": standing.bad,
        "pending": standing.pending,
    }
    metadata: dict[str, Any] = {name: round(value, 5) for name, value in figures.items() if value is not None}
    metadata["state"] = standing.state
    metadata["objective"] = _sentence(objective.target, objective.within_s, objective.window_days)
    if standing.oldest_pending:
        key, changed_at = standing.oldest_pending
        metadata["oldest_pending"] = f"{key}, changed {changed_at:%Y-%m-%d %H:%M:%S} UTC"
    picture = base64.b64encode(history_webp(measured.rows, objective, now=standing.now)).decode()
    metadata["plot"] = dg.MetadataValue.md(f"![Latency, data age, error budget](data:image/webp;base64,{picture})")
    return {
        "passed": standing.state == "ok",
        "severity": dg.AssetCheckSeverity.ERROR if standing.state in URGENT else dg.AssetCheckSeverity.WARN,
        "description": summary(standing),
        "metadata": metadata,
    }


def _promise(config: RagConfig, source: str) -> str:
    objective = config.objective_of(config.source(source))
    promised = _sentence(objective.target, objective.within_s, objective.window_days)
    return f"Of source {source}: {promised}, and nothing waits for more than {objective.hard_limit_s:g} s."


def _sentence(target: float, within_s: float, days: int) -> str:
    return f"{100 * target:.10g} % of changes searchable within {within_s:g} s, over {days} days"


def _remembered(cursor: str | None) -> dict[str, Told]:
    """Return what the cursor holds; one of another version, or none, means that nothing was told yet."""
    try:
        return _CURSOR.validate_json(cursor or "{}")
    except ValidationError:
        return {}
