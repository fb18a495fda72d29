"""Where pages are kept: `reports/` of the store, on local disk and S3 alike.

Beside each page lies its card, a small JSON file with what the index says of it.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow.fs as pafs

from rag_core.tables.files import list_folder, read_file, remove_file, remove_folder, write_file
from rag_core.tables.store import Store

FOLDER: Final = "reports"
LATEST: Final = "latest.html"

Tone = Literal["good", "warn", "bad"]


@dataclass(frozen=True)
class ReportPage:
    """A page that was written.

    Attributes:
        path: Relative to the store, such as reports/sources/handbook/d3-c3-e3-i4-0a1b2c3d.html.
        uri: Address that a browser or an S3 client opens: file:///... or s3://...
        title: Heading of the page.
        written_at: ISO 8601, UTC.
        tone: Whether all is well.
        facts: What it says, in a few figures by name.
    """

    path: str
    uri: str
    title: str
    written_at: str
    tone: Tone = "good"
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def local_path(self) -> str:
        """Absolute path if the store is a local folder, else the address: what a person copies into a browser."""
        return self.uri.removeprefix("file://")

    @property
    def markdown(self) -> str:
        """The facts as a Markdown table, for a user interface that shows no HTML."""
        rows = [f"| {name} | {value} |" for name, value in self.facts.items()]
        return "\n".join(["| | |", "| --- | --- |", *rows])


def write_page(
    store: Store,
    path: str,
    html: str,
    *,
    title: str,
    written_at: str,
    tone: Tone,
    facts: Mapping[str, str],
    latest: bool = True,
) -> ReportPage:
    """Write a page and its card, then, unless told not to, both again as the latest of their folder."""
    page = ReportPage(path, page_uri(store, path), title, written_at, tone, dict(facts))
    card = json.dumps(asdict(page), ensure_ascii=False)
    copies = [f"{path.rpartition('/')[0]}/{LATEST}"] if latest else []
    for name in (path, *copies):
        write_text(store, name, html)
        write_text(store, _card_of(name), card)
    return page


def read_card(store: Store, path: str) -> ReportPage | None:
    """Return what is known of a page, or None if there is none."""
    text = read_text(store, _card_of(path))
    if text is None:
        return None
    known: dict[str, Any] = json.loads(text)
    return ReportPage(**{**known, "uri": page_uri(store, known["path"])})


def write_text(store: Store, path: str, text: str) -> None:
    """Write a file at once: a reader sees the old one or the new one."""
    write_file(store, path, text.encode())


def read_text(store: Store, path: str) -> str | None:
    """Read a file below the store, or None if it does not exist."""
    content = read_file(store, path)
    return None if content is None else content.decode()


def read_bytes(store: Store, path: str) -> bytes | None:
    """Read a file below the store, or None if it does not exist."""
    return read_file(store, path)


def names_in(store: Store, folder: str) -> list[str]:
    """List the names of what is in a folder below the store, the one written last first; none if it is not there."""
    return [info.base_name for info in _infos(store, folder)]


def keep_newest(store: Store, folder: str, most: int) -> None:
    """Remove all but the newest pages of a folder, with their cards."""
    pages = [name for name in names_in(store, folder) if name.endswith(".html") and name != LATEST]
    for name in pages[most:]:
        for path in (f"{folder}/{name}", _card_of(f"{folder}/{name}")):
            remove_file(store, path)


def keep_newest_folders(store: Store, folder: str, most: int) -> None:
    """Remove all but the newest folders of a folder, by when their `index.html` was written."""
    cards = {name: read_card(store, f"{folder}/{name}/index.html") for name in names_in(store, folder)}
    ordered = sorted(cards, key=lambda name: card.written_at if (card := cards[name]) else "", reverse=True)
    for name in ordered[most:]:
        remove_folder(store, f"{folder}/{name}")


def page_uri(store: Store, path: str) -> str:
    """Return the address of a page."""
    return Path(store.uri(path)).as_uri() if store.is_local else store.uri(path)


def safe_name(name: str) -> str:
    """Make a name that every file system takes."""
    return re.sub(r"[^\w.-]", "_", name)


def _card_of(path: str) -> str:
    return f"{path.removesuffix('.html')}.json"


def _infos(store: Store, folder: str) -> list[pafs.FileInfo]:
    return sorted(list_folder(store, folder), key=lambda info: (-(info.mtime_ns or 0), info.base_name))
