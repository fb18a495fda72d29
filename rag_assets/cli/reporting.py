"""`rag report`: write the pages that tell what is in the store, and open or serve them."""

import uuid
from typing import Annotated

import pyarrow.compute as pc
import typer

from rag_assets.cli.output import CONSOLE, ERRORS
from rag_core.config import RagConfig
from rag_core.config_loader import load_config
from rag_core.errors import ConfigError
from rag_core.reports.pages import ReportPage
from rag_core.tables.delta import TableSlice
from rag_core.tables.store import Store

_VERDICTS = 50  # of which pages are written if they lack one


def report(
    source: Annotated[list[str] | None, typer.Option(help="Only this source; may be repeated.")] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the index of the pages in a browser.")] = False,
    data_docs: Annotated[
        bool, typer.Option("--data-docs", help="With Great Expectations' Data Docs of the last run that tested.")
    ] = False,
    run: Annotated[str, typer.Option(help="Data Docs of this run instead of the last.")] = "",
    serve: Annotated[bool, typer.Option("--serve", help="Serve the pages on 127.0.0.1 until Ctrl-C.")] = False,
    port: Annotated[int, typer.Option(help="Port of --serve; 0: any that is free.")] = 3080,
) -> None:
    """Write a page for each source, one for each verdict that has none, and an index of all; print where they are."""
    from rag_core.reports.index_page import write_index

    config = load_config().config
    store = Store.of(config.store)
    pages = [*_source_pages(store, config, source), *_verdict_pages(store, config)]
    if data_docs or run:
        pages += _data_docs(store, run)
    index = write_index(store)
    for page in [*pages, index]:
        CONSOLE.print(page.local_path, markup=False, highlight=False, soft_wrap=True)
    if serve:
        _serve(store, port, open_page=open_page)
    elif open_page:
        _open(store, index)


def _source_pages(store: Store, config: RagConfig, sources: list[str] | None) -> list[ReportPage]:
    from rag_core.reports.source_page import write_source_report

    known = [one.name for one in config.sources]
    if unknown := sorted(set(sources or ()) - set(known)):
        raise ConfigError(f"no source {', '.join(unknown)}; expected one of {', '.join(known)}")
    run_id = f"report-{uuid.uuid4().hex[:12]}"
    return [write_source_report(store, config, name, run_id=run_id) for name in sources or known]


def _verdict_pages(store: Store, config: RagConfig) -> list[ReportPage]:
    """Write pages of verdicts that have none, the oldest first, so that the newest is the latest."""
    from rag_core.reports.pages import read_text
    from rag_core.reports.publication_page import publication_path, write_publication_report

    ids = TableSlice.newest(store, "verdicts").read(["verdict_id", "judged_at"]).sort_by("judged_at")
    names = dict.fromkeys(ids["verdict_id"].to_pylist()[-_VERDICTS:])
    missing = [name for name in names if read_text(store, publication_path(name)) is None]
    manifests = TableSlice.newest(store, "published_index").read().to_pylist()
    pages = []
    for name in missing:
        rows = TableSlice.newest(store, "verdicts").read(where=pc.field("verdict_id") == name).sort_by("judged_at")
        pages.append(write_publication_report(store, config, rows.to_pylist()[-1], manifests))
    return pages


def _data_docs(store: Store, run: str) -> list[ReportPage]:
    from rag_core.reports.data_docs import last_tested_run, write_data_docs

    run = run or last_tested_run(store)
    page = write_data_docs(store, run) if run else None
    if page is None:
        ERRORS.print(
            f"no validations are kept of {'run ' + run if run else 'any run'}: `rag test --force` makes new ones",
            highlight=False,
        )
    return [page] if page else []


def _serve(store: Store, port: int, *, open_page: bool) -> None:
    from rag_core.reports.serving import report_server

    with report_server(store, port=port) as server:
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        ERRORS.print(f"reports at {address}; Ctrl-C ends it", highlight=False)
        if open_page:
            typer.launch(address)
        server.serve_forever()


def _open(store: Store, index: ReportPage) -> None:
    if not store.is_local:
        raise ConfigError(f"{store.root} is not a local folder: rag report --serve --open shows the pages")
    typer.launch(index.uri)
