"""The rehearsal: a snapshot, everything wiped, and the same answers from an empty machine."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rag_core.index.lite_server import lite_files, stop
from tests.integration.pipeline_helpers import Platform, search_json

pytestmark = [pytest.mark.milvus, pytest.mark.slow]

QUESTIONS = ("when may a refund be paid", "what is announced in spring")
TEXTS = {
    "refunds.md": "# Refunds\n\nA refund may be paid within thirty days of the purchase, by the clerk of the branch.",
    "printers.md": "# Printers\n\nPrinters are repaired by the workshop. Call extension 4417 before noon.",
    "invoices.md": "# Invoices\n\nInvoices of March are kept in the blue cabinet until the auditors have gone.",
    "secret.md": "# Merger\n\nThe merger with the brewery is to be announced in spring.",
}


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name, text in TEXTS.items():
        (corpus / name).write_text(text)
    sources = [{"name": "office", "kind": "files", "root": str(corpus)}]
    return Platform(tmp_path / "rag", sources, {"backup": {"to": str(tmp_path / "backup"), "keep": 2}})


def answers(platform: Platform) -> dict[str, Any]:
    """Return what a user sees for each question: hits by vectors and by words, and the answer."""
    found: dict[str, Any] = {}
    for question in QUESTIONS:
        for mode in ("dense", "bm25"):
            hits = search_json(platform, question, mode)
            found[f"{mode}: {question}"] = [(hit["chunk_id"], hit["text"], hit["uri"]) for hit in hits]
        done = platform.rag("ask", question, "--json")
        assert done.returncode == 0, done.stderr
        found[f"answer: {question}"] = json.loads(done.stdout)["text"]
    return found


def wipe(platform: Platform) -> None:
    stop(lite_files(platform.store))
    shutil.rmtree(platform.store.root)


def test_backup_wipe_restore_same_answers(platform: Platform) -> None:
    platform.run()
    before, tables, vectors = answers(platform), platform.tables(), platform.vectors()
    corpus = Path(platform.sources[0]["root"])

    taken = platform.rag("backup", "take", "--json")
    assert taken.returncode == 0, taken.stderr
    assert json.loads(taken.stdout)["rows"]["documents"] == len(TEXTS)
    # What happens after the snapshot is not in it: a document is deleted for good.
    (corpus / "secret.md").unlink()
    platform.run(accept_deletions=True)
    without = answers(platform)

    wipe(platform)
    restored = platform.rag("backup", "restore")
    assert restored.returncode == 0, restored.stderr
    assert "verified" in restored.stdout
    assert platform.tables() == tables, "the tables are those of the snapshot"
    assert platform.vectors() == vectors, "bit for bit: they are read, not computed again"
    again = platform.rag("backup", "restore")
    assert again.returncode == 2
    assert "has tables" in again.stderr

    # Nobody can ask before the run; it deletes again what was deleted since, and calls no model.
    summary = platform.run(accept_deletions=True)
    assert (summary["parsed"], summary["embedded"]) == (0, 0)
    assert answers(platform) == without
    assert "brewery" in str(before)
    assert "brewery" not in str(without)
    counted, listed = platform.milvus()
    assert counted == len(listed) == len(platform.tables()["index_partitions"])

    verified = platform.rag("verify", "--json")
    assert verified.returncode == 0, verified.stdout
    stop(lite_files(platform.store))
