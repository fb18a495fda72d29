"""The dashboard of freshness: how old the data is, the error budget, how fast it is spent, and why."""

from typing import Final

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.monitoring.build.panels import BAD, GOOD, PIPELINE, SOURCE, Limit, Panels, Query, Row, graph, number, page
from rag_core.config import FreshnessConfig, Objective

_PROMISED: Final = Objective()
_ALARMS: Final = FreshnessConfig()


def freshness() -> Dashboard:
    """Make it. Colors follow the default objective; lines of a source's own objective are drawn from its metrics."""
    return page(
        "rag-freshness",
        "RAG: freshness and error budget",
        "How old the data of each source is, and how it stands to its objective. docs/freshness.md says how it is "
        "measured, docs/monitoring.md what to do.",
        [Row("Now", _now()), Row("Error budget", _budget()), Row("Latency", _latency()), Row("Why", _why())],
        instances='rag_partitions{job="rag-exporter"}',
        with_sources=True,
    )


def _now() -> Panels:
    return [
        number(
            "Age of the data", "Since the oldest change that is not searchable yet; 0: none waits.", "s",
            Query(f"rag_freshness_data_age_seconds{{{SOURCE}}}"),
            limits=(GOOD, Limit(_PROMISED.within_s, "yellow"), Limit(_PROMISED.hard_limit_s, "red")), width=6,
        ),
        number(
            "Error budget left", "Of the objective's window. Below 0 more changes were late than are allowed.",
            "percentunit", Query(f"rag_freshness_error_budget_left_ratio{{{SOURCE}}}"),
            limits=(BAD, Limit(0, "yellow"), Limit(0.25, "green")), width=6,
        ),
        number(
            "Changes that wait", "Changes of the source that are not searchable yet.", "short",
            Query(f"rag_freshness_changes_pending{{{SOURCE}}}"), limits=(GOOD, Limit(1_000, "yellow")), width=6,
        ),
        number(
            "State", "The worst that holds: hard_limit, exhausted, fast_burn, slow_burn, ok.", "short",
            Query(f"rag_freshness_state{{{SOURCE}}} == 1", "{{source}}: {{state}}"), shows_name=True, width=6,
            limits=(Limit(None, "blue"),),
        ),
    ]  # fmt: skip


def _budget() -> Panels:
    limit = f'rag_freshness_burn_limit{{{PIPELINE},speed="%s"}}'
    burn = f'rag_freshness_burn_rate{{{SOURCE},window="%s"}}'
    return [
        graph(
            "Error budget left", "Falls with each late change; rises when late changes leave the window.",
            "percentunit", Query(f"rag_freshness_error_budget_left_ratio{{{SOURCE}}}"), limits=(Limit(0, "red"),),
        ).min(-1.0),
        graph(
            "Fast burn: 1 hour and 5 minutes", "How many times too fast the budget is spent. Both above the limit, and "
            "at least ten outcomes in the hour: an emergency.", "short",
            Query(burn % "1h", "{{source}} 1h"), Query(burn % "5m", "{{source}} 5m"), Query(limit % "fast", "limit"),
            limits=(Limit(_ALARMS.fast_burn, "red"),), dashed=("limit",),
        ),
        graph(
            "Slow burn: 6 hours and 30 minutes", "The same over longer windows: it needs a look the same day.",
            "short", Query(burn % "6h", "{{source}} 6h"), Query(burn % "30m", "{{source}} 30m"),
            Query(limit % "slow", "limit"), limits=(Limit(_ALARMS.slow_burn, "red"),), dashed=("limit",),
        ),
        graph(
            "Changes in the window", "Counted by the objective: searchable in time, and late.", "short",
            Query(f"rag_freshness_window_changes{{{SOURCE}}}", "{{source}} {{outcome}}"), stacked=True, width=12,
        ),
        graph(
            "Attained", "Share of changes that were searchable in time, and what is promised.", "percentunit",
            Query(f"rag_freshness_attained_ratio{{{SOURCE}}}"),
            Query(f"rag_freshness_objective_ratio{{{SOURCE}}}", "{{source}} promised"),
            limits=(Limit(_PROMISED.target, "green"),), width=12,
        ),
    ]  # fmt: skip


def _latency() -> Panels:
    latency = f'rag_freshness_latency_seconds{{{SOURCE},statistic="%s"}}'
    return [
        graph(
            "From change to searchable", "Of the changes of the objective's window that are searchable.", "s",
            Query(latency % "p50", "{{source}} p50"), Query(latency % "p95", "{{source}} p95"),
            Query(f"rag_freshness_objective_seconds{{{SOURCE}}}", "{{source}} promised"),
            limits=(Limit(_PROMISED.within_s, "red"),), width=12,
        ),
        graph(
            "Age of the data", "Rises by a second a second while a change waits, and falls when it is searchable.", "s",
            Query(f"rag_freshness_data_age_seconds{{{SOURCE}}}"),
            Query(f"rag_freshness_hard_limit_seconds{{{SOURCE}}}", "{{source}} hard limit"),
            limits=(Limit(_PROMISED.within_s, "yellow"), Limit(_PROMISED.hard_limit_s, "red")), width=12,
        ),
    ]  # fmt: skip


def _why() -> Panels:
    return [
        graph(
            "Since the last look", "Changes are not seen meanwhile. A look is due every freshness.tick_s.", "s",
            Query(f"time() - rag_source_last_look_timestamp_seconds{{{SOURCE}}}"), limits=(Limit(900, "red"),),
        ),
        graph(
            "Partitions that wait", "Dirty: changes that no pass covers. Stuck and held back do not get through by "
            "themselves.", "short",
            Query(f"rag_partitions_dirty{{{SOURCE}}}", "{{source}} dirty"),
            Query(f"rag_partitions_stuck{{{SOURCE}}}", "{{source}} stuck"),
            Query(f"rag_partitions_held{{{SOURCE}}}", "{{source}} held back"),
        ),
        graph(
            "Looks that find nothing", "1 while a source cannot be listed, or lost too much to be believed; and "
            "notifications that were set aside.", "short",
            Query(f"rag_source_listing_problem{{{SOURCE}}}", "{{source}} {{problem}}"),
            Query(f"rag_source_poison_events{{{SOURCE}}}", "{{source}} set aside"), limits=(Limit(1, "red"),),
        ),
    ]  # fmt: skip
