"""Plots of ANN recall as SVG, for reports. The same values give the same bytes."""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from rag_core.config import EvaluationConfig
from rag_core.evaluation.ann_result import AnnRecall, Measured
from rag_core.evaluation.sweep import Sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE: Final[Mapping[str, Any]] = {
    "svg.hashsalt": "ann",  # otherwise ids in the file are random
    "svg.fonttype": "none",  # text stays text: small, and found by the browser's search
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e5e5",
    "axes.axisbelow": True,
}
_OVERALL: Final = "#1f5fa8"
_FILTERED: Final = "#c2571a"
_MOST_BARS: Final = 60


def plot_sweep(sweep: Sweep, config: EvaluationConfig) -> bytes:
    """Draw recall over the search parameter and over latency, with the floors, the chosen value ringed; SVG.

    Latency is the median of the searches, in ms. Without a parameter there is one point.
    """
    with _figure(8.6, 3.7) as figure:
        by_value, by_latency = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1))
        chosen = int(sweep.search_params.get(sweep.parameter or "", 1))  # without a parameter the one point is at 1
        for label, colour, floor, measured in _curves(sweep, config):
            values = list(measured)
            recalls = [one.recall for one in measured.values()]
            low = [max(one.recall - one.low, 0.0) for one in measured.values()]
            high = [max(one.high - one.recall, 0.0) for one in measured.values()]
            said = f"{label} (floor {floor:g}, dashed)"
            by_value.errorbar(values, recalls, yerr=[low, high], color=colour, marker="o", ms=4, capsize=2, label=said)
            latencies = [one.latency_p50_ms for one in measured.values()]
            by_latency.plot(latencies, recalls, color=colour, marker="o", ms=4, lw=1)
            for value in sorted({values[0], chosen} & set(values)) if sweep.points else ():
                point = (measured[value].latency_p50_ms, measured[value].recall)
                by_latency.annotate(str(value), point, xytext=(6, -11), textcoords="offset points", color=colour)
            for axes in (by_value, by_latency):
                axes.axhline(floor, color=colour, ls="--", lw=0.9)
            if chosen in measured:
                mark = {"marker": "o", "ms": 11, "mfc": "none", "mec": colour, "mew": 1.6, "ls": "none"}
                by_value.plot([chosen], [measured[chosen].recall], **mark)
                by_latency.plot([measured[chosen].latency_p50_ms], [measured[chosen].recall], **mark)
        _axes_of_sweep(by_value, by_latency, sweep)
        return _svg(figure)


def _curves(sweep: Sweep, config: EvaluationConfig) -> Iterator[tuple[str, str, float, dict[int, Measured]]]:
    """Yield label, colour, floor and the measured points by value of both curves."""
    if sweep.points:
        hardest = sweep.hardest
        overall = {one.value: one.overall for one in sweep.points}
        filtered = {one.value: one.filtered for one in sweep.points}
    else:
        filters = sweep.recall.by_filter
        hardest = min(filters, key=lambda name: (filters[name].recall, name), default="")
        overall, filtered = {1: sweep.recall.overall}, {1: filters[hardest]} if hardest else {}
    yield "whole collection", _OVERALL, config.min_ann_recall, overall
    if filtered:
        yield f"filter: {hardest}", _FILTERED, config.min_filtered_recall, filtered


def _axes_of_sweep(by_value: Any, by_latency: Any, sweep: Sweep) -> None:
    by_value.set_ylabel(f"recall@{sweep.recall.k}")
    by_latency.set_xlabel("median latency of a search, ms")
    by_latency.set_xlim(left=0)
    if sweep.points:
        ticks = [one.value for one in sweep.points]
        by_value.set_xscale("log", base=2)
        by_value.set_xticks(ticks, [str(one) for one in ticks], rotation=45)
        by_value.minorticks_off()
        by_value.set_xlabel(f"{sweep.parameter} (chosen: {sweep.search_params[sweep.parameter or '']})")
    else:
        by_value.set_xticks([1], ["no parameter"])
    by_value.set_ylim(top=1.02)
    by_value.figure.legend(loc="outside lower center", ncols=2, frameon=False)


def plot_partitions(recall: AnnRecall, config: EvaluationConfig) -> bytes:
    """Draw recall with its interval overall, under each filter and in each partition, with the floors; SVG.

    Of more than sixty partitions those with the lowest recall are shown.
    """
    partitions = sorted(recall.by_partition.items(), key=lambda item: (item[1].recall, item[0]))[:_MOST_BARS]
    groups = [
        (_OVERALL, [("whole collection", recall.overall)]),
        (_FILTERED, list(recall.by_filter.items())),
        ("#5a5a5a", sorted(partitions)),
    ]
    rows = sum(len(group) for _, group in groups)
    with _figure(6.4, 1.1 + 0.24 * rows) as figure:
        axes = figure.subplots()
        position, labels = 0, []
        for colour, group in groups:
            for name, one in group:
                error = [[max(one.recall - one.low, 0.0)], [max(one.high - one.recall, 0.0)]]
                axes.errorbar([one.recall], [position], xerr=error, fmt="o", color=colour, ms=4, capsize=2)
                short = f", {one.short_results} short" if one.short_results else ""
                labels.append(f"{name} ({one.queries} queries{short})")
                position += 1
        axes.axvline(config.min_ann_recall, color=_OVERALL, ls="--", lw=0.9, label="floor, whole collection")
        axes.axvline(config.min_filtered_recall, color=_FILTERED, ls="--", lw=0.9, label="floor, filters, partitions")
        axes.set_yticks(range(rows), labels)
        axes.set_ylim(rows - 0.5, -0.5)
        axes.set_xlim(right=1.005)
        axes.set_xlabel(f"recall@{recall.k}, 95 % interval")
        figure.legend(loc="outside lower right", ncols=2, frameon=False)
        return _svg(figure)


@contextmanager
def _figure(width: float, height: float) -> "Iterator[Figure]":
    """Make a figure of that size, in inches, without pyplot, which keeps figures and asks for a display."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(dict(_STYLE)):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def _svg(figure: "Figure") -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
