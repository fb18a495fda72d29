"""Results go to JSON and back; the floors; the ladder of values; the plots."""

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_core.config import EvaluationConfig, IndexConfig
from rag_core.evaluation.ann_plots import plot_partitions, plot_sweep
from rag_core.evaluation.ann_result import AnnRecall, Measured
from rag_core.evaluation.sweep import Sweep, SweepPoint, ladder, swept_parameter

CONFIG = EvaluationConfig(min_ann_recall=0.95, min_filtered_recall=0.9)
share = st.floats(0, 1)
count = st.integers(0, 10**6)
measures = st.builds(
    Measured, share, share, share, count, count, count, count, st.floats(0, 1e4), st.floats(0, 1e4), st.text(max_size=9)
)
groups = st.dictionaries(st.text(max_size=9), measures, max_size=3)
params = st.dictionaries(st.text(min_size=1, max_size=9), st.integers(), max_size=2)
recalls = st.builds(AnnRecall, count, params, measures, groups, groups, groups, count, count)
points = st.lists(st.builds(SweepPoint, count, measures, measures), max_size=3).map(tuple)
sweeps = st.builds(
    Sweep,
    st.none() | st.just("ef"),
    points,
    st.text(max_size=9),
    params,
    recalls,
    st.lists(st.text()).map(tuple),
    count,
)


@pytest.mark.slow
@given(recalls)
def test_recall_goes_to_json_and_back(recall: AnnRecall) -> None:
    assert AnnRecall.from_dict(json.loads(json.dumps(recall.to_dict()))) == recall


@pytest.mark.slow
@given(sweeps)
def test_sweep_goes_to_json_and_back(sweep: Sweep) -> None:
    assert Sweep.from_dict(json.loads(json.dumps(sweep.to_dict()))) == sweep


def measured(recall: float, half: float = 0.02, short: int = 0, latency: float = 4.0) -> Measured:
    low, high = max(recall - half, 0), min(recall + half, 1)
    return Measured(recall, low, high, 200, 9_000, short, 0, latency, 2 * latency, "")


GOOD = AnnRecall(
    k=10,
    search_params={"ef": 64},
    overall=measured(0.97),
    by_partition={"handbook__00": measured(0.99), "mail__00": measured(0.88, 0.1)},
    by_filter={"1 % of rows": measured(0.93), "one source": measured(0.96)},
)


def test_json_has_the_documented_shape() -> None:
    written = GOOD.to_dict()["overall"]
    assert {"recall", "low", "high", "queries", "short_results", "latency_ms"} <= set(written)
    assert written["latency_ms"] == {"p50": 4.0, "p95": 8.0}


def test_floors_are_missed_with_a_reason() -> None:
    assert GOOD.missed(CONFIG) == ()
    (overall,) = replace(GOOD, overall=measured(0.91)).missed(CONFIG)
    assert overall == "ANN recall@10 is 0.910 (0.890 to 0.930, 200 queries), below the floor of 0.95."
    (filtered,) = replace(GOOD, by_filter={"1 % of rows": measured(0.5, short=80)}).missed(CONFIG)
    assert "'1 % of rows' is 0.500" in filtered
    assert "80 of 200 results are short" in filtered
    (partition,) = replace(GOOD, by_partition={"mail__00": measured(0.6)}).missed(CONFIG)
    assert partition.startswith("ANN recall@10 in partition mail__00 is 0.600")


def test_ladder_stays_within_the_bounds_of_the_index() -> None:
    hnsw = IndexConfig(index_type="HNSW")
    assert ladder("ef", hnsw, rows=100_000, k=10) == [10, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096]
    assert ladder("ef", hnsw, rows=300, k=10) == [10, 16, 32, 64, 128, 256, 300]
    assert ladder("ef", hnsw, rows=4, k=10) == [10]
    assert ladder("ef", IndexConfig(search_params={"ef": 100}), rows=200, k=10) == [10, 16, 32, 64, 100, 128, 200]
    assert ladder("ef", IndexConfig(search_params={"ef": 4}), rows=200, k=10) == [10, 16, 32, 64, 128, 200]
    ivf = IndexConfig(index_type="IVF_FLAT", build_params={"nlist": 40})
    assert ladder("nprobe", ivf, rows=9_000, k=10) == [1, 2, 4, 8, 16, 32, 40]
    wide = ladder("nprobe", IndexConfig(build_params={"nlist": 65_536}), rows=10**7, k=10)
    assert len(wide) <= 11
    assert (wide[0], wide[-1]) == (1, 65_536)


@pytest.mark.parametrize(
    ("index_type", "lite", "parameter"),
    [
        ("HNSW", True, "ef"),
        ("HNSW_SQ", False, "ef"),
        ("IVF_SQ8", True, "nprobe"),
        ("GPU_IVF_FLAT", False, "nprobe"),
        ("DISKANN", False, "search_list"),
        ("AUTOINDEX", True, "ef"),
        ("AUTOINDEX", False, None),
        ("FLAT", True, None),
        ("GPU_CAGRA", False, None),
    ],
)
def test_parameter_of_an_index_type(index_type: str, lite: bool, parameter: str | None) -> None:
    assert swept_parameter(index_type, lite=lite) == parameter


SWEEP = Sweep(
    parameter="ef",
    points=tuple(
        SweepPoint(value, measured(1 - 2 / value, latency=3 + value / 200), measured(1 - 8 / value, 0.05))
        for value in (10, 16, 32, 64, 128, 256)
    ),
    hardest="1 % of rows",
    search_params={"ef": 128},
    recall=GOOD,
    reasons=(),
    searches=1_000,
)


@pytest.mark.slow
@pytest.mark.parametrize("sweep", [SWEEP, replace(SWEEP, parameter=None, points=(), search_params={}, hardest="")])
def test_plot_of_a_sweep_is_svg_and_the_same_each_time(sweep: Sweep) -> None:
    drawn = plot_sweep(sweep, CONFIG)
    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    assert b"recall@10" in drawn
    assert drawn == plot_sweep(sweep, CONFIG)


@pytest.mark.slow
def test_plot_of_partitions_is_svg_and_bounded() -> None:
    many = replace(GOOD, by_partition={f"handbook__{number:03}": measured(0.9) for number in range(500)})
    drawn = plot_partitions(many, CONFIG)
    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    assert drawn.count(b"handbook__") < 130
    assert drawn == plot_partitions(many, CONFIG)
