"""Plots are SVG, say what they show, and are the same bytes for the same rows."""

import xml.etree.ElementTree as ET

import pytest

from rag_core.evaluation.relevance_plots import difference_plot, means_plot
from tests.unit.evaluation.test_regression import pairs, rows


@pytest.mark.slow
def test_plots_are_well_formed_and_deterministic() -> None:
    old, new = (rows(values, mode="dense") for values in pairs(40, 0.1, 0.1))

    def both() -> list[bytes]:
        return [
            means_plot(old, new, query_set="labelled", source="s"),
            difference_plot(old, new, query_set="labelled", source="s", mode="dense"),
        ]

    made = both()
    assert made == both()
    for image in made:
        assert ET.fromstring(image).tag == "{http://www.w3.org/2000/svg}svg"
        assert b"dc:date" not in image


def test_plots_without_old_rows_or_common_queries() -> None:
    new = rows({"a": 1.0, "b": 1.0}, query_set="known_item", source="*")
    for old in (None, new.slice(0, 0)):
        ET.fromstring(means_plot(old, new, query_set="known_item", source="*", measure="mrr"))
    ET.fromstring(difference_plot(new.slice(0, 0), new, query_set="known_item", source="*", mode="hybrid"))
