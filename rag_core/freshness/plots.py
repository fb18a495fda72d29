"""Pictures of a source's freshness: latency of changes, age of the data, error budget left.

The same rows give the same bytes.
As WebP for the Dagster UI, small enough for its event log, and as SVG for report pages.
"""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from rag_core.config_freshness import Objective
from rag_core.freshness.latency import NEVER, Micros, micros, micros_of
from rag_core.freshness.slo import Outcomes, budget_spent, outcomes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE: Final[Mapping[str, Any]] = {
    "svg.hashsalt": "freshness",  # otherwise ids in the file are random
    "svg.fonttype": "none",  # text stays text: small, and found by the browser's search
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e5e5",
    "axes.axisbelow": True,
}
_LINE: Final = "#1f5fa8"
_LATE: Final = "#c0392b"
_SOFT: Final = "#5a5a5a"
_DPI: Final = 88
_COLOURS: Final = 24  # lines and text need no more, and half of the bytes
_BINS: Final = 120
_MOST_POINTS: Final = 400
_RECENT_US: Final = 6 * 3_600_000_000
_SHORTEST_US: Final = 600_000_000
_LEAST_S: Final = 0.1  # the axis of latency is logarithmic


@dataclass(frozen=True)
class _Facts:
    """What is drawn, times in microseconds: counted changes, and their outcomes."""

    changed: Micros
    queryable: Micros
    known: Outcomes
    objective: Objective
    now: int

    @classmethod
    def of(cls, rows: pa.Table, objective: Objective, now: datetime) -> "_Facts":
        rows = rows.filter(rows["counted"])
        changed, queryable = micros(rows["changed_at"]), micros(rows["queryable_at"])
        return cls(changed, queryable, outcomes(rows, objective, now=now), objective, micros_of(now))

    def ranges(self) -> list[tuple[str, Micros]]:
        """Return what is shown as edges of bins: since the first change of the window, and of that the last 6 hours."""
        window = self.now - self.objective.window_days * 86_400_000_000
        since = self.changed[(self.queryable > window) & (self.changed > window - _RECENT_US)]
        first = min(int(since.min()) if since.size else self.now, self.now - _SHORTEST_US)
        whole = f"{self.objective.window_days} days"
        spans = [(whole, window) if first <= window else (f"since the first change in {whole}", first)]
        first = spans[0][1]
        if self.now - first > 2 * _RECENT_US:
            spans.append(("last 6 hours", self.now - _RECENT_US))
        return [(name, np.linspace(start, self.now, _BINS + 1).astype(np.int64)) for name, start in spans]

    def oldest_s(self, edges: Micros) -> np.ndarray:
        """Return the largest age of the data within each bin; 0 where all changes were searchable."""
        oldest = np.zeros(len(edges) - 1)
        in_bin = np.searchsorted(edges, self.queryable, side="right") - 1
        ended = (in_bin >= 0) & (in_bin < len(oldest))
        np.maximum.at(oldest, in_bin[ended], ((self.queryable - self.changed)[ended]) / 1e6)
        for number, end in enumerate(edges[1:]):
            waiting = self.changed[(self.changed <= end) & (self.queryable > end)]
            if waiting.size:
                oldest[number] = max(oldest[number], (int(end) - int(waiting.min())) / 1e6)
        return oldest

    def budget_left(self, edges: Micros) -> np.ndarray:
        """Return which share of the error budget was left at each edge."""
        window = self.objective.window_days * 86_400_000_000
        bad_before = np.append(0, np.cumsum(self.known.bad))
        last, first = (np.searchsorted(self.known.at, times, side="right") for times in (edges, edges - window))
        bad, counted = bad_before[last] - bad_before[first], last - first
        pairs = zip(bad.tolist(), counted.tolist(), strict=True)
        return np.array([1 - budget_spent(late, all_, self.objective) for late, all_ in pairs])


def history_webp(rows: pa.Table, objective: Objective, *, now: datetime) -> bytes:
    """Draw the `latencies` of a source as WebP of six to ten kilobytes; `history_svg` says what."""
    with _drawn(rows, objective, now) as figure:
        from PIL import Image

        file, small = io.BytesIO(), io.BytesIO()
        figure.savefig(file, format="png", dpi=_DPI, metadata={"Software": None})
        flat = Image.open(file).convert("RGB").quantize(_COLOURS).convert("RGB")
        flat.save(small, format="webp", lossless=True, quality=50, method=2)
        return small.getvalue()


def history_svg(rows: pa.Table, objective: Objective, *, now: datetime) -> bytes:
    """Draw the `latencies` of a source as SVG.

    From above: latency of each change (of very many, the median and the longest of each bin) with the objective's
    line; the age of the data with the hard limit's line, if it comes near; the error budget left. On the left since the
    first change in the objective's window; on the right, if that is long ago, the last 6 hours. What is not counted is
    not drawn.
    """
    with _drawn(rows, objective, now) as figure:
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
        return file.getvalue()


@contextmanager
def _drawn(rows: pa.Table, objective: Objective, now: datetime) -> "Iterator[Figure]":
    from matplotlib.transforms import blended_transform_factory

    facts = _Facts.of(rows, objective, now)
    ranges = facts.ranges()
    with _figure(8.4, 5.6) as figure:
        grid = figure.subplots(3, len(ranges), sharex="col", sharey="row", squeeze=False, height_ratios=(1.3, 1, 1))
        for column, (name, edges) in enumerate(ranges):
            latency, age, budget = grid[:, column]
            times = [_time(edge) for edge in edges]
            _draw_latency(latency, facts, edges)
            age.stairs(facts.oldest_s(edges), _dates(times), fill=True, color=_LINE, alpha=0.75)
            budget.plot(times, 100 * facts.budget_left(edges), color=_LINE, lw=1.4)
            budget.axhline(0, color=_LATE, ls="--", lw=0.9)
            latency.set_title(name, loc="left", fontsize=9, color=_SOFT)
            _format_times(budget, times)
        latency, age, budget = grid[:, 0]
        labels = ("latency of a\nchange, s", "age of the\ndata, s", "error budget\nleft, %")
        for axes, label in zip(grid[:, 0], labels, strict=True):
            axes.set_ylabel(label)
            at = blended_transform_factory(figure.transFigure, axes.transAxes)
            axes.yaxis.set_label_coords(0.05, 0.5, transform=at)
        _limits(latency, age, budget, facts, ranges)
        yield figure


def _draw_latency(axes: Any, facts: _Facts, edges: Micros) -> None:
    chosen = (facts.queryable != NEVER) & (facts.queryable > edges[0]) & (facts.queryable <= edges[-1])
    at = facts.queryable[chosen]
    seconds = np.maximum((at - facts.changed[chosen]) / 1e6, _LEAST_S)
    late = seconds > facts.objective.within_s
    if len(at) <= _MOST_POINTS:
        for part, colour in ((~late, _LINE), (late, _LATE)):
            axes.plot(
                [_time(one) for one in at[part]], seconds[part], ls="none", marker="o", ms=3, color=colour, alpha=0.7
            )
    elif len(at):
        bins = np.clip(np.searchsorted(edges, at, side="left") - 1, 0, len(edges) - 2)
        order = np.lexsort((seconds, bins))
        groups = np.split(seconds[order], np.flatnonzero(np.diff(bins[order])) + 1)
        middles = ((edges[:-1] + edges[1:]) // 2)[np.unique(bins)]
        medians, longest = (np.array([of(group) for group in groups]) for of in (np.median, np.max))
        axes.plot([_time(one) for one in middles], medians, ls="none", marker="_", ms=5, color=_SOFT)
        _draw_points(axes, middles, longest, longest > facts.objective.within_s)
    axes.axhline(facts.objective.within_s, color=_LATE, ls="--", lw=0.9)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.minorticks_off()


def _draw_points(axes: Any, at: Micros, seconds: np.ndarray, late: np.ndarray) -> None:
    for part, colour in ((~late, _LINE), (late, _LATE)):
        times = [_time(one) for one in at[part]]
        axes.plot(times, seconds[part], ls="none", marker="o", ms=3, color=colour, alpha=0.7)


def _limits(latency: Any, age: Any, budget: Any, facts: _Facts, ranges: list[tuple[str, Micros]]) -> None:
    """Set the vertical axes, which are shared along a row, and say what the lines are."""
    objective = facts.objective
    low, high = latency.get_ylim()
    latency.set_ylim(min(low, 1.0), max(high, 2.5 * objective.within_s))
    promise = f"{100 * objective.target:.10g} % of changes within {objective.within_s:g} s"
    oldest = max(facts.oldest_s(edges).max() for _, edges in ranges)
    age.set_ylim(0, max(oldest * 1.1, 10.0))
    if oldest > 0.3 * objective.hard_limit_s:
        for axes in age.figure.axes:
            if axes.get_subplotspec().rowspan.start == 1:
                axes.axhline(objective.hard_limit_s, color=_LATE, ls=":", lw=1)
        age.set_ylim(0, max(oldest * 1.1, objective.hard_limit_s * 1.1))
        promise += f"; dotted: at most {objective.hard_limit_s:g} s old"
    left = min(facts.budget_left(edges).min() for _, edges in ranges)
    budget.set_ylim(min(-5.0, max(100 * left * 1.1, -500.0)), 105)
    latency.figure.suptitle(f"dashed: {promise}", x=0.975, y=0.985, ha="right", fontsize=9, color=_SOFT)


def _format_times(axes: Any, times: list[datetime]) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.set_xlim(times[0], times[-1])


def _time(value: int | np.int64) -> datetime:
    """Return a time as what axes of times take, which are of UTC."""
    return datetime.fromtimestamp(int(value) / 1e6, UTC)


def _dates(times: list[datetime]) -> np.ndarray:
    from matplotlib.dates import date2num

    numbers: np.ndarray = date2num(times)
    return numbers


@contextmanager
def _figure(width: float, height: float) -> "Iterator[Figure]":
    """Make a figure of that size, in inches, without pyplot, which keeps figures and asks for a display."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(dict(_STYLE)):
        figure = Figure(figsize=(width, height))
        # Fixed margins: a layout that is computed takes half of the time.
        figure.subplots_adjust(left=0.115, right=0.975, top=0.91, bottom=0.085, hspace=0.14, wspace=0.04)
        FigureCanvasAgg(figure)
        yield figure
