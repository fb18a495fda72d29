from pathlib import Path

import pytest

from rag_core.config import RagConfig
from rag_core.reports.index_page import write_index
from rag_core.reports.pages import read_text
from rag_core.reports.publication_page import publication_path, write_publication_report
from rag_core.stages.verdict import Verdict
from rag_core.tables.delta import TableSlice
from rag_core.tables.store import Store
from tests.report_support import NEW, NOW, OLD, config_of, fill, verdict_of


@pytest.fixture
def config(tmp_path: Path) -> RagConfig:
    return config_of(tmp_path)


@pytest.fixture
def store(config: RagConfig) -> Store:
    store = Store.of(config.store)
    fill(store)
    return store


def written(store: Store, config: RagConfig, verdict: Verdict) -> str:
    manifests = TableSlice.newest(store, "published_index").read().to_pylist()
    page = write_publication_report(store, config, verdict.to_row(), manifests)
    assert page.path == publication_path(verdict.verdict_id)
    return read_text(store, page.path) or ""


@pytest.mark.slow
def test_refusal_says_why_in_words_first(store: Store, config: RagConfig) -> None:
    html = written(store, config, verdict_of(config, passed=False))
    reasons = [
        html.index("below the floor of 0.9"),
        html.index("refused: a loss above"),
        html.index("2 rows were shown"),
    ]
    assert html.index("It is refused") < min(reasons) <= max(reasons) < html.index("ANN recall against exact search")
    assert "under label 0a1b document 7 was found" in html
    assert "wiki__01" in html


@pytest.mark.slow
def test_everything_measured_is_shown(store: Store, config: RagConfig) -> None:
    html = written(store, config, verdict_of(config, passed=True, ndcg=(0.7, 0.72)))
    assert "It may be served" in html
    # Recall over the parameter and by filter; then, of two query sets, means old and new and query by query.
    assert html.count('<svg class="matplotlib"') == 2 + 2 * 2
    for text in ("ef (chosen: 64)", "filter: 1 % of rows", "0.700 →", "0.720", "rank-biased overlap", "8.0 →", OLD,
                 f"rolled back from {NEW}", "384 dimensions", "max_tokens"):  # fmt: skip
        assert text in html, text
    assert "http" not in html.replace("http-equiv", "").replace("http://www.w3.org", ""), "nothing is loaded"


@pytest.mark.slow
def test_plots_do_not_share_ids(store: Store, config: RagConfig) -> None:
    import re

    html = written(store, config, verdict_of(config, passed=True))
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', html)) <= {(one, "") for one in ids} | {
        ("", one) for one in ids
    }


@pytest.mark.slow
def test_first_verdict_compares_nothing(config: RagConfig, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "first"))
    whole = verdict_of(config, passed=True)
    kept = {name: whole.measures[name] for name in ("ann", "relevance", "entropy")}
    kept |= {"regression": [], "leaks": {"labels": 1, "documents": 3, "leaked": 0, "examples": []}}
    html = written(store, config, verdict_of(config, passed=True, against="", measures=kept))
    assert "no other index was served" in html
    assert "Old against new" not in html
    assert "had not been published when this page was written" in html


def test_a_verdict_that_measured_nothing_has_a_page(config: RagConfig, tmp_path: Path) -> None:
    html = written(Store(str(tmp_path / "bare")), config, verdict_of(config, passed=False, measures={"settings": "s"}))
    assert html.count("Not measured.") == 1
    assert "It is refused" in html


@pytest.mark.slow
def test_index_lists_the_newest_first(store: Store, config: RagConfig) -> None:
    import os

    for number, name in enumerate(("aaaa", "bbbb", "cccc")):
        verdict = verdict_of(config, passed=name != "bbbb", verdict_id=name, judged_at=NOW, measures={"settings": "s"})
        written(store, config, verdict)
        os.utime(Path(store.root) / publication_path(name), (number, number))
    html = read_text(store, write_index(store).path) or ""
    places = [html.index(f"publications/{name}.html") for name in ("cccc", "bbbb", "aaaa")]
    assert places == sorted(places)
    assert "latest.html" not in html
    assert "below the floor of 0.9" in html
