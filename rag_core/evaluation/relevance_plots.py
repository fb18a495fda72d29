"""Plots of relevance as SVG: old against new by mode, and query by query. The same rows give the same bytes."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from rag_core.evaluation.regression import grouped, mean_interval
from rag_core.retrieval.ranking import MODES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OLD: Final = "#9aa5b1"
_NEW: Final = "#2b6cb0"
_WORSE: Final = "#c0392b"
_LABELS: Final = {
    "ndcg_at_10": "nDCG@10",
    "recall_at_10": "recall@10",
    "recall_at_100": "recall@100",
    "mrr": "reciprocal rank",
}


def means_plot(
    old: pa.Table | None, new: pa.Table, *, query_set: str, source: str, measure: str = "ndcg_at_10"
) -> bytes:
    """Draw the mean of a measure by mode, with its 95 % bootstrap interval; of the old rows, too, where there are some.

    Args:
        old: Rows of `retrieval_eval` of one evaluation, or None.
        new: Rows of another.
        query_set: labelled or known_item.
        source: Source that was searched; `*` for all.
        measure: Column that is drawn.

    Returns:
        SVG.
    """
    sides = [("old", _OLD, old)] if old is not None and old.num_rows else []
    sides.append(("new" if sides else "measured", _NEW, new))
    with _svg(5.6, 3.2) as (axes, written):
        width = 0.8 / len(sides)
        for number, (label, colour, rows) in enumerate(sides):
            groups = grouped(rows, measure)
            for place, mode in enumerate(MODES):
                values = np.array(list(groups.get((query_set, source, mode), {}).values()))
                if values.size:
                    at = place + (number - (len(sides) - 1) / 2) * width
                    _bar(axes, at, width * 0.92, values, colour)
            axes.bar(0, 0, color=colour, label=label)
        axes.set_xticks(range(len(MODES)), MODES)
        axes.set_ylim(0, 1.08)  # room for the figure above a bar of 1
        axes.set_yticks(np.linspace(0, 1, 6))
        axes.set_ylabel(_LABELS[measure])
        axes.set_title(_title(query_set, source), loc="left", fontsize=10)
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return written.getvalue()


def difference_plot(
    old: pa.Table, new: pa.Table, *, query_set: str, source: str, mode: str, measure: str = "ndcg_at_10"
) -> bytes:
    """Draw new minus old for every query that both have, sorted; arguments as in `means_plot`."""
    key = (query_set, source, mode)
    before, after = grouped(old, measure).get(key, {}), grouped(new, measure).get(key, {})
    differences = np.sort([after[query] - before[query] for query in before.keys() & after.keys()])
    better, worse = int((differences > 0).sum()), int((differences < 0).sum())
    with _svg(5.6, 3.2) as (axes, written):
        edges = np.arange(len(differences) + 1) + 0.5  # two areas instead of a bar for each query
        for colour, side in ((_WORSE, np.minimum(differences, 0)), (_NEW, np.maximum(differences, 0))):
            axes.stairs(side, edges, fill=True, color=colour)
        axes.axhline(0, color="#444444", linewidth=0.8)
        axes.set_ylim(-1, 1)
        axes.set_xlabel(f"{len(differences)} queries: {worse} worse, {better} better")
        axes.set_ylabel(f"{_LABELS[measure]}, new minus old")
        axes.set_title(f"{mode}, {_title(query_set, source)}", loc="left", fontsize=10)
    return written.getvalue()


def _bar(axes: "Axes", at: float, width: float, values: np.ndarray, colour: str) -> None:
    mean, (low, high) = float(values.mean()), mean_interval(values)
    errors = [[mean - low], [high - mean]]
    axes.bar(at, mean, width, color=colour, yerr=errors, capsize=3, error_kw={"elinewidth": 1, "ecolor": "#333333"})
    axes.annotate(f"{mean:.3f}", (at, high), (0, 4), textcoords="offset points", ha="center", fontsize=8)


def _title(query_set: str, source: str) -> str:
    name = "known-item queries (generated)" if query_set == "known_item" else "labelled queries"
    return f"{name}, {'all sources' if source == '*' else source}"


@contextmanager
def _svg(width: float, height: float) -> Iterator[tuple["Axes", io.BytesIO]]:
    """Give axes to draw on; at the end what was drawn is in the buffer.

    Figures are made without pyplot, which keeps them all in a list of the process and is not safe in threads.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    written = io.BytesIO()
    # Ids inside an SVG are random, and it has a date, unless told otherwise.
    with rc_context({"svg.hashsalt": "relevance", "svg.fonttype": "path", "font.size": 9}):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        yield axes, written
        figure.savefig(written, format="svg", metadata={"Date": None})
