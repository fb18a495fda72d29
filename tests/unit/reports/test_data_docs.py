"""Data Docs of validations that Great Expectations really made."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rag_core.reports.data_docs import last_tested_run, write_data_docs
from rag_core.reports.index_page import write_index
from rag_core.reports.pages import names_in, read_text
from rag_core.tables.store import Store
from tests.report_support import SCRIPT, append, result_row


@pytest.fixture(scope="module")
def results() -> Mapping[str, Any]:
    import great_expectations as gx
    import great_expectations.expectations as gxe
    import pandas as pd

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    asset = context.data_sources.add_pandas("reports").add_dataframe_asset("chunks")
    frame = pd.DataFrame({"text": ["a", "b", SCRIPT, SCRIPT], "token_count": [1, 2, 3, 400]})
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
    failing = [
        gxe.ExpectColumnValuesToBeUnique(column="text", description="text is unique."),
        gxe.ExpectColumnValuesToBeBetween(column="token_count", max_value=254),
        gxe.ExpectColumnMeanToBeBetween(column="missing", max_value=1),
    ]
    passing = [gxe.ExpectColumnValuesToNotBeNull(column="text")]
    wanted = {"result_format": "BASIC", "partial_unexpected_count": 5}
    return {
        name: batch.validate(gx.ExpectationSuite(name=name, expectations=expectations), result_format=wanted)
        for name, expectations in (("chunks__lane__handbook__00", failing), ("chunks__lane__handbook__01", passing))
    }


def test_a_page_for_each_validation(results: Mapping[str, Any], tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    page = write_data_docs(store, "run/1", results)
    assert page is not None
    assert page.path == "reports/data_docs/run_1/index.html"
    assert (page.tone, page.facts["validations"], page.facts["expectations"]) == ("bad", "2, 1 failed", "4, 3 not met")
    front = read_text(store, page.path) or ""
    assert front.index("handbook__00") < front.index("handbook__01"), "the failed one first"
    html = read_text(store, "reports/data_docs/run_1/chunks__lane__handbook__00.html") or ""
    for text in ("text is unique.", "unexpected values found", "400", "The column &#34;missing&#34;"):
        assert text in html or text.replace("&#34;", '"') in html, text
    assert "data_docs/run_1/index.html" in (read_text(store, write_index(store).path) or "")


def test_pages_load_nothing_and_show_texts_as_texts(results: Mapping[str, Any], tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    write_data_docs(store, "run", results)
    for name in names_in(store, "reports/data_docs/run"):
        html = read_text(store, f"reports/data_docs/run/{name}") or ""
        assert "<script" not in html
        assert "http://" not in html
        assert "https://" not in html
        assert "../expectations/" not in html
    assert "&lt;script&gt;" in (read_text(store, "reports/data_docs/run/chunks__lane__handbook__00.html") or "")


def test_what_a_run_kept_is_found(results: Mapping[str, Any], tmp_path: Path) -> None:
    from rag_core.quality import validations

    store = Store(str(tmp_path))
    assert write_data_docs(store, "run") is None
    assert last_tested_run(store) == ""
    for name, result in results.items():
        validations.save(store, "run", name, result.to_json_dict())
    append(store, "quality_results", [result_row("handbook__00", "unique__text", "error")])
    assert last_tested_run(store) == "run"
    page = write_data_docs(store, "run")
    assert page is not None
    assert page.facts["failed"] == "chunks__lane__handbook__00"
