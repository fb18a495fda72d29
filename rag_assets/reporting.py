"""Report pages written by a run, and how the metadata of an asset points at them."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from rag_core.config import RagConfig
from rag_core.reports.index_page import write_index
from rag_core.reports.pages import ReportPage
from rag_core.reports.publication_page import publication_path, write_publication_report
from rag_core.reports.serving import page_url
from rag_core.reports.source_page import source_report_is_current, write_source_report
from rag_core.stages.verdict import Verdict
from rag_core.tables.delta import TableSlice
from rag_core.tables.store import Store


def write_reports(store: Store, config: RagConfig, verdict: Verdict) -> list[ReportPage]:
    """Write the page of a verdict, those of the sources that changed since their last, and the index of all."""
    manifests = TableSlice.newest(store, "published_index").read().to_pylist()
    pages = [write_publication_report(store, config, verdict.to_row(), manifests)]
    for source in config.sources:
        if not source_report_is_current(store, config, source.name):
            pages.append(write_source_report(store, config, source.name, run_id=verdict.run_id))
    return [*pages, write_index(store)]


def report_path(verdict: Verdict) -> str:
    """Return where the page of a verdict is or will be, relative to the store."""
    return publication_path(verdict.verdict_id)


def report_metadata(store: Store, config: RagConfig, path: str) -> Mapping[str, Any]:
    """Point at a page: by the address of the server of the pages, and by its place in the store.

    Browsers follow no link from the UI to a file.
    """
    url = page_url(path, config.quality.reports_url)
    return {"report": dg.MetadataValue.url(url), "report_path": dg.MetadataValue.path(store.uri(path))}
