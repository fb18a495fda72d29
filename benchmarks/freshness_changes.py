"""Changes that people make to documents: new, changed, deleted and renamed files of several formats, records of a file.

Each change is about objects that no other change touches, so that what becomes of it can be told from the index.
"""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rag_core import ids

FILES = "files"
RECORDS = "abstracts"

_TEXT = {".md", ".txt", ".csv"}
_SAID = (
    "The committee reviewed the procedure on the request of the secretary and found nothing to object to. "
    "Its reference is {marker}, under which the minutes are kept in the archive of the department."
)
_PAGE = "<html><head><title>Notice {marker}</title></head><body><h1>Notice {marker}</h1><p>{text}</p></body></html>"
_MAIL = (
    "From: secretary@example.org\nTo: staff@example.org\nSubject: Notice {marker}\n"
    "Date: Wed, 04 Mar 2026 10:00:00 +0000\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n{text}\n"
)

_LARGEST = 200_000  # bytes; three tables of the corpus are longer than all other documents together


@dataclass
class Change:
    """One change, and what the index must hold when it has arrived.

    Attributes:
        kind: new, changed, deleted or renamed.
        form: The format, such as md or jsonl.
        apply: Makes the change.
        present: doc_id -> text that one of its chunks has; empty: any text.
        absent: doc_ids of which nothing may be left.
        at: When it is to be made, seconds after the beginning.
        made_at: When it was made, seconds since 1970.
        seen_at: When the index held it, seconds since 1970; None: not yet.
    """

    kind: str
    form: str
    apply: Callable[[], object]
    present: dict[str, str] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()
    at: float = 0.0
    made_at: float = 0.0
    seen_at: float | None = None

    @property
    def latency_s(self) -> float | None:
        """Seconds from the change until the index held it."""
        return None if self.seen_at is None else self.seen_at - self.made_at


class Corpus:
    """Folders of files and a file of records, with changes made up for them."""

    def __init__(self, root: Path, files: Path, records: Path, *, seed: int = 7) -> None:
        """Copy the documents; nasty ones, which are there to be rejected, and large ones are left out."""
        self.files, self.records = root / FILES, root / "records" / "docs.jsonl"
        self.random = random.Random(seed)
        shutil.copytree(files, self.files, ignore=_left_out)
        self.records.parent.mkdir()
        shutil.copy2(records, self.records)
        self._unused = sorted(path for path in self.files.rglob("*") if path.is_file())
        self.random.shuffle(self._unused)
        self._records = list(range(sum(1 for _ in self.records.open())))
        self.random.shuffle(self._records)
        self._numbers = 0

    def changes(self, count: int, over_s: float) -> list[Change]:
        """Make up changes at random times; four in ten are new, three changed, the rest deleted or renamed."""
        makers = [self.new, self.new, self.new, self.new, self.changed, self.changed, self.changed_record]
        makers += [self.deleted, self.renamed, self.renamed]
        made = [makers[number % len(makers)]() for number in range(count)]
        self.random.shuffle(made)
        for change, at in zip(made, sorted(self.random.uniform(0, over_s) for _ in made), strict=True):
            change.at = at
        return made

    def burst(self, count: int) -> list[Change]:
        """Make up new files, all to be made at once."""
        return [self.new(folder="burst") for _ in range(count)]

    def new(self, folder: str = "incoming") -> Change:
        """A new file, as text, Markdown, a page, a mail, or a copy of an office document or PDF."""
        marker = self._marker()
        text = _SAID.format(marker=marker)
        forms = {
            "md": f"# Notice {marker}\n\n{text}\n",
            "txt": f"{text}\n",
            "html": _PAGE.format(marker=marker, text=text),
            "eml": _MAIL.format(marker=marker, text=text),
        }
        form = self.random.choice([*forms, *forms, "docx", "pdf", "xlsx", "pptx"])
        key = f"{folder}/{marker}.{form}"
        if form in forms:
            content, said = forms[form].encode(), marker
        else:
            content, said = self.random.choice(sorted(self.files.glob(f"{form}/*.{form}"))).read_bytes(), ""
        return Change("new", form, lambda: self._write(key, content), {ids.doc_id(FILES, key): said})

    def changed(self) -> Change:
        """A sentence more in a file of text, a row more in a table."""
        path = self._take(lambda path: path.suffix in _TEXT)
        marker = self._marker()
        key = path.relative_to(self.files).as_posix()
        line = f"{marker}\n".encode() if path.suffix == ".csv" else f"\n{_SAID.format(marker=marker)}\n".encode()
        content = path.read_bytes().rstrip() + b"\n" + line
        return Change("changed", path.suffix[1:], lambda: self._write(key, content), {ids.doc_id(FILES, key): marker})

    def changed_record(self) -> Change:
        """Another text in a record of the JSONL file, which is written anew as a whole."""
        number, marker = self._records.pop(), self._marker()
        record = json.loads(self.records.read_text().splitlines()[number])

        def apply() -> None:
            lines = self.records.read_text().splitlines()
            lines[number] = json.dumps({**record, "text": f"{record['text']} {_SAID.format(marker=marker)}"})
            part = self.records.with_name(".docs.part")
            part.write_text("\n".join(lines) + "\n")
            part.replace(self.records)

        return Change("changed", "jsonl", apply, {ids.doc_id(RECORDS, f"docs.jsonl#{record['_id']}"): marker})

    def deleted(self) -> Change:
        """A file less."""
        path = self._take(lambda path: path.suffix in {".json", ".xlsx", ".pdf", ".html"})
        doc_id = ids.doc_id(FILES, path.relative_to(self.files).as_posix())
        return Change("deleted", path.suffix[1:], path.unlink, absent=frozenset({doc_id}))

    def renamed(self) -> Change:
        """A file under another name."""
        path = self._take(lambda path: path.suffix in {".html", ".pdf", ".docx", ".eml", ".pptx"})
        target = path.with_name(f"{self._marker()}{path.suffix}")
        old, new = (ids.doc_id(FILES, one.relative_to(self.files).as_posix()) for one in (path, target))
        return Change("renamed", path.suffix[1:], partial(path.rename, target), {new: ""}, frozenset({old}))

    def _write(self, key: str, content: bytes) -> None:
        path = self.files / key
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)

    def _take(self, admits: Callable[[Path], bool]) -> Path:
        path = next(path for path in self._unused if admits(path))
        self._unused.remove(path)
        return path

    def _marker(self) -> str:
        self._numbers += 1
        return f"ref{self._numbers:05d}{self.random.randrange(16**6):06x}"


def _left_out(folder: str, names: list[str]) -> set[str]:
    """Say what `copytree` leaves out of a folder."""
    not_documents = shutil.ignore_patterns("nasty", "manifest.csv", "slack-export*")(folder, names)
    return {*not_documents, *(name for name in names if (Path(folder) / name).stat().st_size > _LARGEST)}
