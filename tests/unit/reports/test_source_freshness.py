"""The objective of a source on its page."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from rag_core.config import RagConfig
from rag_core.reports.pages import read_text
from rag_core.reports.source_page import source_report_is_current, write_source_report
from rag_core.tables.log import append_rows
from rag_core.tables.store import Store
from tests.freshness_facts import START, change, passed
from tests.report_support import config_of, fill


@pytest.fixture
def config(tmp_path: Path) -> RagConfig:
    return config_of(tmp_path)


@pytest.fixture
def store(config: RagConfig) -> Store:
    store = Store.of(config.store)
    fill(store)
    return store


def test_before_any_change_there_is_a_promise_and_no_plot(store: Store, config: RagConfig) -> None:
    page = write_source_report(store, config, "wiki", run_id="run")
    html = read_text(store, page.path) or ""
    assert "99 % of changes are promised to be searchable within 5.0 min, over 30 days; none was counted." in html
    assert 'class="matplotlib"' not in html
    assert page.facts["objective"] == "ok, no change in 30 days"


@pytest.mark.slow
def test_the_page_shows_latency_and_the_standing(store: Store, config: RagConfig) -> None:
    write_source_report(store, config, "handbook", run_id="run")
    now = (datetime.now(UTC) - START).total_seconds()
    late = change(99, now - 4_000, object_key="<b>old</b>.pdf", partition_key="handbook__01")
    append_rows(store, "source_changes", [*[change(number, now - 60) for number in range(20)], late])
    append_rows(store, "passes", [passed(now - 50, now - 40)])
    assert not source_report_is_current(store, config, "handbook")
    page = write_source_report(store, config, "handbook", run_id="run")
    html = read_text(store, page.path) or ""
    assert page.tone == "bad"
    assert page.facts["objective"] == "hard_limit, 95.24 % in time"
    assert '<span class="chip bad">hard limit</span>' in html
    assert "20 of 21 were." in html
    assert "the oldest change that is not searchable was made 4,0" in html
    assert "Median 20 s, 95 % within 20 s, longest 20 s" in html
    assert html.count('class="matplotlib"') == 1
    assert "&lt;b&gt;old&lt;/b&gt;.pdf" in html
    assert "<b>old" not in html
    assert "http" not in html.replace("http-equiv", "").replace("http://www.w3.org", ""), "nothing is loaded"
    assert source_report_is_current(store, config, "handbook")
