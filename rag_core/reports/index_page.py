"""The page that leads to all others: sources, verdicts and Data Docs, written last first."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from rag_core.reports.formats import render
from rag_core.reports.pages import FOLDER, LATEST, ReportPage, names_in, page_uri, read_card, write_text
from rag_core.reports.publication_page import PUBLICATIONS
from rag_core.tables.store import Store

_EARLIER: Final = 10
_VERDICTS: Final = 30
_RUNS: Final = 20
DATA_DOCS: Final = f"{FOLDER}/data_docs"


@dataclass(frozen=True)
class _Listed:
    """A page and earlier ones of the same thing; `href` is relative to the index."""

    page: ReportPage
    href: str
    earlier: tuple[str, ...] = ()

    @property
    def written_at(self) -> datetime:
        return datetime.fromisoformat(self.page.written_at)


def write_index(store: Store) -> ReportPage:
    """Write `reports/index.html` from the cards of the pages; no table is read."""
    now = datetime.now(UTC)
    sources = _sources(store)
    html = render(
        "index.html",
        title="Reports",
        now=now,
        sources=sources,
        verdicts=_pages(store, PUBLICATIONS, _VERDICTS),
        runs=_runs(store),
        store=store.root,
    )
    path = f"{FOLDER}/index.html"
    write_text(store, path, html)
    return ReportPage(path, page_uri(store, path), "Reports", now.isoformat(timespec="seconds"))


def _sources(store: Store) -> list[_Listed]:
    found = []
    for name in names_in(store, f"{FOLDER}/sources"):
        folder = f"{FOLDER}/sources/{name}"
        page = read_card(store, f"{folder}/{LATEST}")
        if page is not None:
            names = [file for file in names_in(store, folder) if file.endswith(".html") and file != LATEST]
            earlier = [f"sources/{name}/{file}" for file in names if f"{folder}/{file}" != page.path]
            found.append(_Listed(page, f"sources/{name}/{LATEST}", tuple(earlier[:_EARLIER])))
    return sorted(found, key=lambda one: one.page.written_at, reverse=True)


def _pages(store: Store, folder: str, most: int) -> list[_Listed]:
    names = [name for name in names_in(store, folder) if name.endswith(".html") and name != LATEST]
    pages = (read_card(store, f"{folder}/{name}") for name in names[:most])
    return [_Listed(page, _href(page.path)) for page in pages if page is not None]


def _runs(store: Store) -> list[_Listed]:
    pages = (read_card(store, f"{DATA_DOCS}/{name}/index.html") for name in names_in(store, DATA_DOCS))
    listed = [_Listed(page, _href(page.path)) for page in pages if page is not None]
    return sorted(listed, key=lambda one: one.page.written_at, reverse=True)[:_RUNS]


def _href(path: str) -> str:
    return path.removeprefix(f"{FOLDER}/")
