"""How each source stands to its objective, as `rag_core.freshness.slo` judges it, with the limits of rag.yaml."""

from datetime import datetime, timedelta
from typing import Final

from prometheus_client import CollectorRegistry, Gauge

from rag_core.config import RagConfig
from rag_core.freshness.latency import micros_of
from rag_core.freshness.measuring import Measured, measure
from rag_core.freshness.slo import MIN_OUTCOMES, STATES, WINDOWS_S, outcomes
from rag_core.tables.store import Store

_STATISTICS: Final = ("p50", "p95", "max")


class FreshnessMetrics:
    """Measured from all changes and passes that are kept, so that a change which never gets through counts as well.

    Rates of Prometheus' own over counters would only know of changes that became searchable.
    """

    name = "freshness"

    def __init__(self, store: Store, config: RagConfig) -> None:
        """Name the store; nothing is read yet."""
        self._store, self._config = store, config
        self.registry = r = CollectorRegistry()
        source = ["source"]
        self._age = Gauge(
            "rag_freshness_data_age_seconds", "Age of the oldest change that is not searchable yet; 0: none waits.",
            source, registry=r,
        )  # fmt: skip
        self._pending = Gauge(
            "rag_freshness_changes_pending", "Changes that are not searchable yet.", source, registry=r
        )
        self._window = Gauge(
            "rag_freshness_window_changes", "Changes in the objective's window: good, or late.",
            ["source", "outcome"], registry=r,
        )  # fmt: skip
        self._attained = Gauge(
            "rag_freshness_attained_ratio", "Share of these that were in time; missing without changes.", source,
            registry=r,
        )  # fmt: skip
        self._budget = Gauge(
            "rag_freshness_error_budget_left_ratio", "Share of the error budget that is left; below 0: overdrawn.",
            source, registry=r,
        )  # fmt: skip
        self._burn = Gauge(
            "rag_freshness_burn_rate", "How many times too fast the error budget is spent, by window.",
            ["source", "window"], registry=r,
        )  # fmt: skip
        self._outcomes = Gauge(
            "rag_freshness_outcomes", "Changes whose outcome became known within a window.", ["source", "window"],
            registry=r,
        )  # fmt: skip
        self._latency = Gauge(
            "rag_freshness_latency_seconds", "From a change to its being searchable, in the objective's window.",
            ["source", "statistic"], registry=r,
        )  # fmt: skip
        self._state = Gauge(
            "rag_freshness_state", "1 for the state of a source's objective: ok, slow_burn, fast_burn, exhausted, "
            "hard_limit.", ["source", "state"], registry=r,
        )  # fmt: skip
        self._within = Gauge(
            "rag_freshness_objective_seconds", "Within this a change must be searchable.", source, registry=r
        )
        self._target = Gauge(
            "rag_freshness_objective_ratio", "Share of changes for which that is promised.", source, registry=r
        )
        self._hard_limit = Gauge(
            "rag_freshness_hard_limit_seconds", "Age of an unsearchable change above which somebody is told at once.",
            source, registry=r,
        )  # fmt: skip
        self._burn_limit = Gauge(
            "rag_freshness_burn_limit", "Burn rate that alarms: fast over 1 h and 5 min, slow over 6 h and 30 min.",
            ["speed"], registry=r,
        )  # fmt: skip
        self._enough = Gauge(
            "rag_freshness_burn_min_outcomes", "Outcomes that the long window needs before a rate says anything.",
            registry=r,
        )  # fmt: skip
        self._enough.set(MIN_OUTCOMES)
        self._burn_limit.labels("fast").set(config.freshness.fast_burn)
        self._burn_limit.labels("slow").set(config.freshness.slow_burn)
        for one in config.sources:
            objective = config.objective_of(one)
            self._within.labels(one.name).set(objective.within_s)
            self._target.labels(one.name).set(objective.target)
            self._hard_limit.labels(one.name).set(objective.hard_limit_s)

    def update(self, now: datetime) -> None:
        """Measure every source."""
        self._attained.clear()
        self._latency.clear()
        for source in self._config.sources:
            self._show(measure(self._store, self._config, source.name, now=now))

    def _show(self, measured: Measured) -> None:
        one = measured.standing
        self._age.labels(one.source).set(one.data_age_s)
        self._pending.labels(one.source).set(one.pending)
        self._window.labels(one.source, "good").set(one.good)
        self._window.labels(one.source, "late").set(one.bad)
        if one.attained is not None:
            self._attained.labels(one.source).set(one.attained)
        self._budget.labels(one.source).set(one.budget_left)
        known = outcomes(measured.rows, one.objective, now=one.now)
        for window, seconds in WINDOWS_S.items():
            self._burn.labels(one.source, window).set(one.burn[window])
            since = known.since(micros_of(one.now - timedelta(seconds=seconds)))
            self._outcomes.labels(one.source, window).set(len(since.at))
        for statistic, value in zip(_STATISTICS, (one.p50_s, one.p95_s, one.max_s), strict=True):
            if value is not None:
                self._latency.labels(one.source, statistic).set(value)
        for state in STATES:
            self._state.labels(one.source, state).set(state == one.state)
