"""The corpus of mixed files through the parser process, row by row of its manifest."""

import csv
import re
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from rag_core.parsing.rows import SourceDefaults, document_batches
from rag_core.parsing.sandbox import ParserProcess
from rag_core.parsing.settings import ParseSettings
from rag_core.schemas import DOCUMENTS
from rag_core.sources.base import SourceObject

pytestmark = pytest.mark.corpora

# Rows whose phrase the text rightly lacks.
EXCEPTIONS = {
    "nasty/powerpoint-bad-text.pptx": (
        "the phrase was made by deleting the line breaks between words (`freestandard`, `collectionexclusively`); our "
        "text keeps the words apart"
    ),
}
# Rows for which the manifest allows two outcomes; the second is ours.
AS_GOOD = {"nasty/markdown-named-pdf.pdf": "ok"}
NAVIGATION = ("¶", "Table of Contents", "Previous topic", "Show Source", "Created using Sphinx", "Jump to content")


def folded(text: str) -> str:
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text)).strip()


@pytest.fixture(scope="module")
def manifest(corpora: Path) -> list[dict[str, str]]:
    with (corpora / "mixed" / "manifest.csv").open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture(scope="module")
def documents(corpora: Path, manifest: list[dict[str, str]]) -> Iterator[dict[str, list[dict[str, object]]]]:
    """Rows of the table by object key, the object's own document first."""
    root = corpora / "mixed"

    def listed(key: str) -> SourceObject:
        path = root / key
        modified_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        return SourceObject("mixed", key, path.as_uri(), "f", path.stat().st_size, modified_at)

    settings = ParseSettings()
    with ParserProcess(settings) as parser:
        batches = document_batches(
            (listed(row["path"]) for row in manifest),
            read=lambda item: (root / item.key).read_bytes(),
            parser=parser,
            settings=settings,
            defaults=SourceDefaults((), 8),
            ingested_at=datetime.now(UTC),
        )
        table = pa.Table.from_batches(batches, schema=DOCUMENTS)
    found: dict[str, list[dict[str, object]]] = {}
    for row in table.to_pylist():
        found.setdefault(row["object_key"], []).append(row)
    yield found


def test_every_row_is_what_the_manifest_says(
    manifest: list[dict[str, str]], documents: dict[str, list[dict[str, object]]]
) -> None:
    wrong = []
    for row in manifest:
        expected = {"ok": "ok", "empty": "empty", "reject": "rejected"}[row["expected"]]
        own = documents[row["path"]][0]
        if own["status"] != AS_GOOD.get(row["path"], expected):
            wrong.append(f"{row['path']}: {own['status']} ({own['reason']}), expected {expected}")
        if own["status"] != "ok" and not (own["reason"] and own["text"] == ""):
            wrong.append(f"{row['path']}: {own['status']} without a reason, or with text")
    assert not wrong, "\n".join(wrong)


def test_every_ok_row_contains_its_phrase(
    manifest: list[dict[str, str]], documents: dict[str, list[dict[str, object]]]
) -> None:
    missing = {
        row["path"]
        for row in manifest
        if row["expected"] == "ok"
        and not any(folded(row["phrase"]) in folded(str(d["text"])) for d in documents[row["path"]])
    }
    assert missing == set(EXCEPTIONS)


def test_encrypted_armour_is_not_indexed(documents: dict[str, list[dict[str, object]]]) -> None:
    assert not any("BEGIN PGP" in str(d["text"]) for rows in documents.values() for d in rows)


def test_web_pages_lose_navigation(documents: dict[str, list[dict[str, object]]]) -> None:
    for key, rows in documents.items():
        if key.startswith("html/"):
            assert not [mark for mark in NAVIGATION if mark in str(rows[0]["text"])], key


def test_pages_of_pdfs_and_slides(documents: dict[str, list[dict[str, object]]]) -> None:
    counts = {
        "pdf/developers-reference.pdf": 114,
        "nasty/debian-reference-ja.pdf": 272,
        "pdf/multi-page.pdf": 5,
        "pptx/sample-presentation.pptx": 4,
    }
    for key, pages in counts.items():
        starts, text = documents[key][0]["page_starts"], str(documents[key][0]["text"])
        assert isinstance(starts, list)
        assert len(starts) == pages
        assert starts == sorted(starts)
        assert max(starts) <= len(text)
    text = str(documents["pdf/multi-page.pdf"][0]["text"])
    starts = documents["pdf/multi-page.pdf"][0]["page_starts"]
    assert isinstance(starts, list)
    assert text[starts[1] :].startswith("Other notable software from this era")
    assert text[starts[4] :].startswith("The journey of the word processor")


@pytest.mark.parametrize(
    ("key", "title", "language"),
    [
        ("html/debian-policy-ch-binary.html", "3. Binary packages", "en"),
        ("pdf/geotopo-german-117p.pdf", "Geometrie und Topologie", "de"),
        ("txt/debian-faq-ja.txt", "debian-faq-ja", "ja"),
        ("md/18f-equipment.md", "Equipment", "en"),
        ("eml/word-encoded-subject.eml", "Simple email with ☸☿ Unicode subject", "en"),
    ],
)
def test_titles_and_languages(
    documents: dict[str, list[dict[str, object]]], key: str, title: str, language: str
) -> None:
    assert (documents[key][0]["title"], documents[key][0]["language"]) == (title, language)


def test_attachments_are_documents_of_their_own(documents: dict[str, list[dict[str, object]]]) -> None:
    mail, attachment = documents["eml/fake-email-attachment.eml"]
    assert (attachment["member"], attachment["object_id"]) == ("fake-attachment.txt", mail["doc_id"])
    assert str(attachment["uri"]).endswith("fake-email-attachment.eml#fake-attachment.txt")
