from datetime import timedelta
from pathlib import Path

import pytest

from rag_core.config import RagConfig
from rag_core.partitions import partition_keys_of
from rag_core.reports.chunk_facts import chunk_facts
from rag_core.reports.document_facts import document_facts
from rag_core.reports.freshness import freshness
from rag_core.reports.outcomes import newest_outcomes
from rag_core.reports.pages import read_text
from rag_core.reports.source_page import source_report_is_current, write_source_report
from rag_core.tables.delta import TableSlice
from rag_core.tables.store import Store
from tests.report_support import NEW, NOW, SCRIPT, append, chunk, config_of, document, fill, result_row


@pytest.fixture
def config(tmp_path: Path) -> RagConfig:
    return config_of(tmp_path)


@pytest.fixture
def store(config: RagConfig) -> Store:
    store = Store.of(config.store)
    fill(store)
    return store


def slice_of(store: Store, config: RagConfig, table: str, lane: str | None = None) -> TableSlice:
    return TableSlice.newest(store, table, partition_keys_of(config, "handbook"), lane=lane)


def test_documents_are_counted(store: Store, config: RagConfig) -> None:
    facts = document_facts(slice_of(store, config, "documents"))
    assert facts.statuses == {"ok": 3, "rejected": 1, "empty": 1}
    assert facts.languages == {"en": 2, "unknown": 1}
    assert facts.mimes == {"text/markdown": 3, "application/pdf": 2}
    assert [(one.status, one.count, one.uris) for one in facts.reasons] == [
        ("empty", 1, ["file:///srv/handbook/5.md"]),
        ("rejected", 1, ["file:///srv/handbook/4.md"]),
    ]
    assert (facts.same_bytes.surplus, facts.same_bytes.groups) == (1, 1)
    assert facts.same_text.largest[0].uris == ("file:///srv/handbook/2.md", "file:///srv/handbook/3.md")


def test_chunks_of_the_lane_are_counted(store: Store, config: RagConfig) -> None:
    facts = chunk_facts(slice_of(store, config, "chunks", "new"))
    assert facts.count == 8
    assert int(facts.token_counts.max()) == 22, "250 tokens are of another lane"
    assert facts.char_counts.min() == 100
    assert (facts.surplus, facts.groups) == (1, 1)
    assert (facts.largest[0].count, facts.largest[0].documents) == (2, 2)


def test_freshness_is_the_age_of_the_data(store: Store, config: RagConfig) -> None:
    parts = (slice_of(store, config, "documents"), slice_of(store, config, "chunks", "new"))
    found = freshness(*parts, slice_of(store, config, "index_partitions", NEW), now=NOW)
    assert found.age is not None
    assert found.age.p50_s == timedelta(days=2).total_seconds()
    assert found.age.classes["1 to 3 years"] == 1
    assert found.delay is not None
    assert found.delay.p95_s == pytest.approx(600)
    assert (found.waiting, found.oldest_waiting) == (1, NOW - timedelta(days=1))


def test_sources_without_times_have_no_age(config: RagConfig, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "other"))
    doc = document("handbook", 1, modified_at=None)
    append(store, "documents", [doc])
    append(store, "chunks", [chunk(doc, 0)])
    parts = (slice_of(store, config, "documents"), slice_of(store, config, "chunks"))
    found = freshness(*parts, slice_of(store, config, "index_partitions"), now=NOW)
    assert (found.age, found.delay, found.waiting, found.oldest_waiting) == (None, None, 1, None)


def test_the_newest_result_of_each_test_counts(store: Store, config: RagConfig) -> None:
    found = newest_outcomes(store, partition_keys_of(config, "handbook"), {"chunks": "new"})
    assert found.counts == {"pass": 1, "warn": 1, "error": 1}
    assert [(one.outcome, one.test) for one in found.failing] == [
        ("error", "unique__chunk_id"),
        ("warn", "boilerplate__text"),
    ]
    assert found.failing[0].failing == [f"chunk 7: {SCRIPT}"]
    unique = next(one for one in found.summaries if one.test == "unique__chunk_id")
    assert (unique.outcome, unique.counts["pass"], unique.partitions) == ("error", 1, 2)


def test_page_tells_it_and_escapes_what_documents_say(store: Store, config: RagConfig) -> None:
    page = write_source_report(store, config, "handbook", run_id="run 7")
    html = read_text(store, page.path) or ""
    assert page.tone == "bad"
    assert page.facts["tests"] == "1 pass, 1 warn, 1 error"
    assert "It is a scan." in html
    assert "run 7" in html
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "http" not in html.replace("http-equiv", "").replace("http://www.w3.org", ""), "nothing is loaded"
    assert read_text(store, "reports/sources/handbook/latest.html") == html
    assert "2.5 years" in html


@pytest.mark.slow
def test_page_is_current_until_something_of_the_source_changes(store: Store, config: RagConfig) -> None:
    assert not source_report_is_current(store, config, "handbook")
    write_source_report(store, config, "handbook", run_id="run")
    assert source_report_is_current(store, config, "handbook")
    append(store, "documents", [document("wiki", 2)])
    append(store, "quality_results", [result_row("wiki__00", "row_count", "error", evaluated_at=NOW + timedelta(1))])
    assert source_report_is_current(store, config, "handbook"), "another source changed"
    append(store, "quality_results", [result_row("handbook__00", "row_count", "warn", evaluated_at=NOW + timedelta(1))])
    assert not source_report_is_current(store, config, "handbook")
    first = write_source_report(store, config, "handbook", run_id="run")
    append(store, "documents", [document("handbook", 9)])
    assert not source_report_is_current(store, config, "handbook")
    second = write_source_report(store, config, "handbook", run_id="run")
    assert first.path != second.path
    assert read_text(store, first.path) is not None, "pages are kept"


def test_page_of_a_source_without_anything(config: RagConfig, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "none"))
    page = write_source_report(store, config, "wiki", run_id="run")
    html = read_text(store, page.path) or ""
    assert page.facts["documents"].startswith("0:")
    assert "nothing is published yet" in html
    assert "No result is stored" in html
