"""Panels and dashboards in the project's own few kinds, made by Grafana's foundation SDK (schema of Grafana 11.6)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models import dashboard as model

PIPELINE: Final = 'job="rag-exporter",instance=~"$instance"'
"""Matchers of the exporter's metrics."""
SOURCE: Final = f'{PIPELINE},source=~"$source"'
"""Those with a source."""
SERVICE: Final = 'job="rag-serving",instance=~"$instance"'
"""Matchers of the service's metrics."""

_DATASOURCE: Final = model.DataSourceRef(type_val="prometheus", uid="$datasource")
_COLUMNS: Final = 24


@dataclass(frozen=True)
class Query:
    """An expression, and how its series are named; `{{label}}` stands for a label's value."""

    expr: str
    legend: str = "{{source}}"


@dataclass(frozen=True)
class Limit:
    """From `value` on, the color: green, yellow or red. `None` is the color of everything below the first."""

    value: float | None
    color: str


GOOD: Final = Limit(None, "green")
BAD: Final = Limit(None, "red")


Panels = Sequence[timeseries.Panel | stat.Panel]


@dataclass(frozen=True)
class Row:
    """Panels under a heading; they are laid out from left to right, and onto further lines."""

    title: str
    panels: Panels


def graph(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    limits: Iterable[Limit] = (),
    stacked: bool = False,
    dashed: Sequence[str] = (),
    width: int = 8,
) -> timeseries.Panel:
    """Make a panel of series over time.

    Args:
        title: What it shows.
        description: What it means and what to look for.
        unit: One of Grafana's: s, bytes, percentunit, short, ops, reqps, ...
        queries: What is drawn.
        limits: Where lines of warning are drawn; none for what has no limit.
        stacked: Whether series are on top of one another.
        dashed: Names of series that are limits themselves: drawn dashed and red.
        width: Of 24 columns.
    """
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(_DATASOURCE)
        .unit(unit)
        .min(0.0)
        .fill_opacity(20.0 if stacked else 5.0)
        .show_points(looks.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(looks.LegendDisplayMode.LIST)
            .placement(looks.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(looks.TooltipDisplayMode.MULTI).sort(looks.SortOrder.DESCENDING))
        .height(8)
        .span(width)
    )
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(looks.StackingMode.NORMAL))
    listed = tuple(limits)
    if listed:
        style = common.GraphThresholdsStyleConfig().mode(looks.GraphThresholdsStyleMode.DASHED)
        panel = panel.thresholds(_thresholds(listed)).thresholds_style(style)
    for name in dashed:
        panel = panel.override_by_name(
            name,
            [
                model.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [10, 10]}),
                model.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": "red"}),
            ],
        )
    for number, query in enumerate(queries):
        panel = panel.with_target(_target(number, query))
    return panel


def number(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    limits: Iterable[Limit] = (GOOD,),
    shows_name: bool = False,
    width: int = 4,
) -> stat.Panel:
    """Make a panel of what is so now, one figure for each series; colored by limits.

    Args:
        title: What it shows.
        description: What it means and what to look for.
        unit: One of Grafana's.
        queries: What is shown.
        limits: From which value on it has which color.
        shows_name: Show the name of a series and not its value, where the name says it.
        width: Of 24 columns.
    """
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(_DATASOURCE)
        .unit(unit)
        .color_mode(looks.BigValueColorMode.BACKGROUND)
        .graph_mode(looks.BigValueGraphMode.NONE)
        .text_mode(looks.BigValueTextMode.NAME if shows_name else looks.BigValueTextMode.VALUE_AND_NAME)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .no_value("no data")
        .thresholds(_thresholds(tuple(limits)))
        .height(5)
        .span(width)
    )
    for place, query in enumerate(queries):
        panel = panel.with_target(_target(place, query).instant())
    return panel


def page(
    uid: str, title: str, description: str, rows: Sequence[Row], *, instances: str, with_sources: bool
) -> model.Dashboard:
    """Make a dashboard.

    Args:
        uid: Its id, and the name of its file.
        title: Its name.
        description: What it is for.
        rows: What is on it.
        instances: Metric and matchers whose label `instance` can be chosen from.
        with_sources: Whether a source can be chosen.
    """
    built = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["rag-assets"])
        .timezone("browser")
        .time("now-6h", "now")
        .refresh("30s")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(_variable("instance", "Instance", instances))
        .link(dashboard.DashboardLink("Others").type(model.DashboardLinkType.DASHBOARDS).tags(["rag-assets"]))
    )
    if with_sources:
        built = built.with_variable(_variable("source", "Source", 'rag_partitions{job="rag-exporter"}'))
    for row in rows:
        built = built.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            built = built.with_panel(panel)
    made = built.build()
    made.id_val = None
    _number(made.panels or [])
    return made


def _variable(name: str, label: str, metric: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(_DATASOURCE)
        .query(f"label_values({metric}, {name})")
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(model.VariableOption(text="All", value="$__all"))
    )


def _target(number: int, query: Query) -> prometheus.Dataquery:
    ref = chr(ord("A") + number)
    return prometheus.Dataquery().datasource(_DATASOURCE).ref_id(ref).expr(query.expr).legend_format(query.legend)


def _thresholds(limits: Sequence[Limit]) -> dashboard.ThresholdsConfig:
    steps = [model.Threshold(value=limit.value, color=limit.color) for limit in limits]
    if steps[0].value is not None:
        steps.insert(0, model.Threshold(value=None, color="transparent"))
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)


def _number(panels: Sequence[model.Panel | model.RowPanel]) -> None:
    """Give each panel an id, without which links to a panel and repeated panels do not work."""
    for number, panel in enumerate(panels, start=1):
        panel.id_val = number
