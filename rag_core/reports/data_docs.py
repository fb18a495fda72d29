"""Data Docs of one run: what Great Expectations makes of its validations, as pages that need no network.

Great Expectations' own page loads Bootstrap, jQuery, icons and a logo from other servers. Here its own renderers and
templates fill this package's page, under this package's style sheet. Only one run is rendered, never the history.
"""

import html
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from rag_core.quality import validations
from rag_core.reports.formats import NOTHING, number, render
from rag_core.reports.index_page import DATA_DOCS
from rag_core.reports.pages import ReportPage, keep_newest_folders, safe_name, write_page, write_text
from rag_core.tables.delta import PARTITIONED, TableSlice
from rag_core.tables.store import Store

if TYPE_CHECKING:
    from great_expectations.core import ExpectationSuiteValidationResult

_KEPT_RUNS: Final = 20

_OWN: Final = {
    "page.j2": "{% for section in sections %}{% set section_loop = loop -%}{% include 'section.j2' %}{% endfor %}",
    "collapse.j2": "<details>"
    "<summary>{{ content_block.get('collapse_toggle_link', 'Show more') | render_content_block }}</summary>"
    "{% for block in content_block['collapse'] %}{{ block | render_content_block }}{% endfor %}</details>",
}
"""Templates in place of Great Expectations' own: the page without head and menus, folding without scripts."""

_SUITE_LINK: Final = re.compile(r'<a href="(?:\.\./)+expectations/[^"]*"\s*>(.*?)</a>', re.DOTALL)


@dataclass(frozen=True)
class _Validation:
    """A validation of the run: its page's file name, its name, and how it ended."""

    file: str
    name: str
    passed: bool
    expectations: int
    failed: int


def write_data_docs(
    store: Store,
    run_id: str,
    results: "Mapping[str, ExpectationSuiteValidationResult | Mapping[str, Any]] | None" = None,
) -> ReportPage | None:
    """Write a page for each validation of a run, and one that leads to them, under `reports/data_docs/<run id>/`.

    Importing Great Expectations takes seconds.

    Args:
        store: Holds the pages.
        run_id: The run.
        results: Name of the batch -> its validation, or that as JSON; default: what `rag_core.quality` kept of the run.

    Returns:
        The page that leads to the others; None if the run validated nothing, or it was too long ago.
    """
    chosen = validations.load(store, run_id) if results is None else results
    if not chosen:
        return None
    folder, now = f"{DATA_DOCS}/{safe_name(run_id)}", datetime.now(UTC)
    written = []
    for name, validation, body in _rendered(run_id, chosen):
        written.append(validation)
        page = render("data_docs.html", title=name, body=body, validation=validation, run_id=run_id, now=now)
        write_text(store, f"{folder}/{validation.file}", page)
    failed = sum(not one.passed for one in written)
    expectations, unmet = sum(one.expectations for one in written), sum(one.failed for one in written)
    title = f"Data Docs of run {run_id}"
    listed = sorted(written, key=lambda one: (one.passed, one.name))
    front = write_page(
        store,
        f"{folder}/index.html",
        render("data_docs_index.html", title=title, validations=listed, now=now, back="../../index.html"),
        title=title,
        written_at=now.isoformat(timespec="seconds"),
        tone="bad" if failed else "good",
        facts={
            "validations": f"{number(len(written))}, {number(failed)} failed",
            "expectations": f"{number(expectations)}, {number(unmet)} not met",
            "failed": ", ".join(one.name for one in listed if not one.passed) or NOTHING,
        },
        latest=False,
    )
    keep_newest_folders(store, DATA_DOCS, _KEPT_RUNS)
    return front


def last_tested_run(store: Store) -> str:
    """Return the run that tested partitions last, of those whose validations are kept; empty if none is.

    `rag run` ends with a run that publishes and tests nothing but `retrieval_eval`: the one before it is meant.
    """
    tested = TableSlice.newest(store, "quality_results").read(["run_id", "evaluated_at", "table"])
    of_partitions = tested.filter(pc.is_in(tested["table"], pa.array(sorted(PARTITIONED))))
    tested = of_partitions if of_partitions.num_rows else tested
    ordered = (
        tested.group_by("run_id").aggregate([("evaluated_at", "max")]).sort_by([("evaluated_at_max", "descending")])
    )
    return next((run for run in ordered["run_id"].to_pylist()[:_KEPT_RUNS] if validations.load(store, run)), "")


def _rendered(
    run_id: str,
    results: "Mapping[str, ExpectationSuiteValidationResult | Mapping[str, Any]]",
) -> Iterator[tuple[str, _Validation, str]]:
    """Yield the name, the outcome and the content, as HTML, of each validation."""
    from great_expectations.render.renderer import ValidationResultsPageRenderer

    from rag_core.quality import expectations  # noqa: F401  (being imported registers them and their renderers)

    view, renderer = _view(), ValidationResultsPageRenderer()
    for name in sorted(results):
        result = results[name]
        loaded = _loaded(result if isinstance(result, Mapping) else result.to_json_dict())
        loaded.meta.setdefault("run_id", {"run_name": run_id, "run_time": _load_time(loaded.meta)})
        statistics = loaded.statistics
        outcome = _Validation(
            f"{safe_name(name)}.html",
            name,
            bool(loaded.success),
            int(statistics["evaluated_expectations"]),
            int(statistics["unsuccessful_expectations"]),
        )
        yield name, outcome, _SUITE_LINK.sub(r"\1", view.render(renderer.render(loaded)))


def _loaded(document: Mapping[str, Any]) -> "ExpectationSuiteValidationResult":
    """Read a validation from JSON, escaped: Great Expectations writes found values into the page as they are."""
    from great_expectations.core.expectation_validation_result import ExpectationSuiteValidationResultSchema

    results = [{**one, "result": _escaped(one.get("result"))} for one in document["results"]]
    loaded: ExpectationSuiteValidationResult = ExpectationSuiteValidationResultSchema().load(
        {**document, "results": results}
    )
    return loaded


def _escaped(value: Any) -> Any:
    """Escape every text of a JSON value; text of documents must not become a part of the page."""
    if isinstance(value, str):
        return html.escape(value, quote=False)
    if isinstance(value, Mapping):
        return {key: _escaped(one) for key, one in value.items()}
    return [_escaped(one) for one in value] if isinstance(value, list) else value


def _load_time(meta: Mapping[str, Any]) -> str:
    """Return when the batch was loaded, ISO 8601; that is when it was validated."""
    written = (meta.get("batch_markers") or {}).get("ge_load_time")
    time = datetime.strptime(written, "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC) if written else datetime.now(UTC)
    return time.isoformat()


def _view() -> Any:
    """Make Great Expectations' view with its sections only: its page is taken over by a template of ours."""
    from great_expectations.render.view import DefaultJinjaPageView
    from jinja2 import ChoiceLoader, DictLoader

    view = DefaultJinjaPageView()
    view.env.loader = ChoiceLoader([DictLoader(_OWN), view.env.loader])
    return view
