from datetime import timedelta

import numpy as np
import pytest

from rag_core.reports.charts import bars, histogram
from rag_core.reports.formats import age, counted, figure, place, share, short, themed


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0.0 s"),
        (timedelta(seconds=90), "90 s"),
        (121, "2.0 min"),
        (timedelta(hours=5), "5.0 hours"),
        (timedelta(days=45), "45 days"),
        (timedelta(days=900), "2.5 years"),
    ],
)
def test_ages_are_in_their_largest_unit(value: timedelta | float | None, text: str) -> None:
    assert age(value) == text


def test_a_share_of_something_is_not_nothing() -> None:
    assert [share(0, 9), share(1, 100_000), share(99_999, 100_000), share(5, 10), share(1, 0)] == [
        "0 %",
        "< 1 %",
        "> 99 %",
        "50 %",
        "–",
    ]


def test_figures_and_counts() -> None:
    assert [figure(2.0), figure(0.5), figure(None), figure(0.0)] == ["2", "0.500", "–", "0.000"]
    assert [counted(1, "chunk"), counted(1200, "chunk")] == ["1 chunk", "1,200 chunks"]


def test_long_texts_are_cut_where_it_hurts_least() -> None:
    assert short("a\n b" + "x" * 200, 10) == "a bxxxxxx…"
    assert place("file:///" + "folder/" * 30 + "end.md").endswith("/end.md")


def test_bars_sum_up_the_rest() -> None:
    found = bars({f"type {number}": 20 - number for number in range(20)}, most=5)
    assert [bar.label for bar in found] == ["type 0", "type 1", "type 2", "type 3", "16 others"]
    assert sum(bar.count for bar in found) == sum(range(1, 21))


def test_histogram_counts_every_value_once() -> None:
    values = np.random.default_rng(0).integers(0, 5_000, 400)
    drawn = histogram(values, unit="tokens", limit=4_000)
    counts = [int(part.split("</title>")[0].rsplit(": ", 1)[1].replace(",", "")) for part in drawn.split("<title>")[1:]]
    assert sum(counts) == 400
    assert "limit 4,000" in drawn


@pytest.mark.parametrize("values", [[], [0], [7, 7, 7]])
def test_histograms_of_few_values(values: list[int]) -> None:
    assert bool(histogram(np.array(values, np.int64), unit="tokens")) == bool(values)


def test_plots_take_the_colours_of_the_page_and_ids_of_their_own() -> None:
    plot = (
        b'<?xml version="1.0"?><!DOCTYPE svg><svg width="9"><metadata>x</metadata><g id="a">'
        b'<path d="M 0 0" style="fill: #ffffff"/><use xlink:href="#b" style="stroke: #000000"/>'
        b'<g clip-path="url(#c)" style="fill: #ffffff"/></g></svg>'
    )
    themed_plot = themed(plot, "p1")
    assert themed_plot.startswith("<svg ")
    assert "metadata" not in themed_plot
    assert all(name in themed_plot for name in ('id="p1-a"', 'href="#p1-b"', "url(#p1-c)", "stroke: currentColor"))
    assert themed_plot.count("#ffffff") == 1, "the background is see-through, a white label is not"
