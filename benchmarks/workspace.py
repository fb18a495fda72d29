"""A store of its own for one measurement: configuration, documents, and the environment of a user without settings."""

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rag_core.tables.store import Store

_CHANGE = b"The retention of this page was reviewed; its owner is the documentation team of the benchmark."


@dataclass(frozen=True)
class Workspace:
    """A configuration, a copy of the documents (hard links where that is possible) and a store in a folder."""

    root: Path

    @property
    def documents(self) -> Path:
        return self.root / "documents"

    @property
    def config(self) -> Path:
        return self.root / "rag.yaml"

    @property
    def store(self) -> Store:
        return Store(str(self.root / "store"))

    @property
    def dagster_home(self) -> Path:
        return self.store.local_path("dagster")

    @classmethod
    def create(cls, root: Path, files: Sequence[Path], corpus: Path, settings: Mapping[str, Any]) -> "Workspace":
        workspace = cls(root)
        for path in files:
            target = workspace.documents / path.relative_to(corpus)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path, target)
            except OSError:
                shutil.copy2(path, target)
        source = {"name": "manuals", "kind": "files", "root": "documents"}
        workspace.config.write_text(yaml.safe_dump({"store": {"root": "store"}, "sources": [source], **settings}))
        return workspace

    def change_one(self) -> Path:
        """Add a sentence to one page, the middle one by name; the linked original stays as it is."""
        pages = sorted(path for path in self.documents.rglob("*") if path.is_file())
        page = pages[len(pages) // 2]
        part = page.with_name(page.name + ".part")
        part.write_bytes(with_sentence(page.read_bytes()))
        part.replace(page)
        return page


def with_sentence(page: bytes) -> bytes:
    """Add a paragraph after the first heading of a page, where no parser takes it for navigation; to a text's end."""
    heading = re.search(rb"</h[1-3]>", page)
    if heading is None:
        return page + b"\n\n" + _CHANGE
    return page[: heading.end()] + b"<p>" + _CHANGE + b"</p>" + page[heading.end() :]


def environment(config: Path) -> dict[str, str]:
    """Return the environment of a user with no settings of their own: RAG_ variables here must not change the run."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAG_") and name != "DAGSTER_HOME"}
    return {**kept, "RAG_CONFIG": str(config)}
