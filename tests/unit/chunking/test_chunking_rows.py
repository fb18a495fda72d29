"""Rows of chunks from rows of documents."""

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from rag_core import ids
from rag_core.chunking import rows
from rag_core.chunking.chunker import Chunker, make_chunker
from rag_core.config import ChunkingConfig
from rag_core.schemas import DOCUMENTS
from rag_core.tables.delta import row_schema

TEXT = "# Title\n\n" + "The quick brown fox jumps over the lazy dog. " * 20


@pytest.fixture(scope="module")
def chunker() -> Chunker:
    return make_chunker(ChunkingConfig(max_tokens=64))


def document(key: str = "a.md", text: str = TEXT, **changes: Any) -> dict[str, Any]:
    moment = datetime(2024, 5, 1, 12, 30, 0, 250, tzinfo=UTC)
    row = {
        "partition_key": "docs__00", "doc_id": ids.doc_id("docs", key), "source": "docs", "object_key": key,
        "member": "", "external_id": None, "uri": f"file:///{key}", "title": "Title", "mime": "text/markdown",
        "language": None, "text": text, "page_starts": None, "modified_at": moment, "size_bytes": 1,
        "object_fingerprint": "f",
        "content_hash": "c", "text_hash": "t", "principals": ["p"], "access_label": "label", "status": "ok",
        "reason": None, "parser_fingerprint": "p", "doc_hash": "d", "ingested_at": moment,
    }  # fmt: skip
    return row | changes


def chunk(chunker: Chunker, *documents: dict[str, Any]) -> pa.Table:
    batch = pa.RecordBatch.from_pylist(list(documents), schema=DOCUMENTS)
    batches = list(rows.chunk_batches([batch], lambda _: chunker))
    return pa.Table.from_batches(batches, schema=row_schema("chunks"))


def test_rows_hold_the_chunks_and_what_they_inherit(chunker: Chunker) -> None:
    table = chunk(chunker, document(external_id="x7"))
    assert table.schema.equals(row_schema("chunks"), check_metadata=True)
    table.validate(full=True)
    expected = chunker.split(TEXT)
    assert table["text"].to_pylist() == [one.text for one in expected]
    assert table["ordinal"].to_pylist() == list(range(len(expected)))
    first = table.to_pylist()[0]
    assert first["heading_path"] == ["Title"]
    assert first["text_hash"] == ids.text_hash(expected[0].embedded_text)
    assert first["modified_at"] == datetime(2024, 5, 1, 12, 30, 0, 250, tzinfo=UTC)
    assert (first["external_id"], first["page"], first["doc_hash"]) == ("x7", None, "d")
    assert first["chunker_fingerprint"] == chunker.fingerprint


def test_only_ok_documents_have_chunks(chunker: Chunker) -> None:
    others = [document("a", "", status="rejected"), document("b", "", status="empty"), document("d", " ")]
    table = chunk(chunker, *others, document("c"))
    assert set(table["doc_id"].to_pylist()) == {ids.doc_id("docs", "c")}


def test_ids_are_unique_and_repeated_text_has_occurrences(chunker: Chunker) -> None:
    same = "".join(f"# H\n\n{'Same words here, again. ' * 8}\n\n" for _ in range(3))
    table = chunk(chunker, document(text=same), document("b", same))
    assert len(set(table["text_hash"].to_pylist())) == 1
    assert len(set(table["chunk_id"].to_pylist())) == table.num_rows == 6


def test_ids_of_unchanged_sections_survive_an_insertion_but_their_rows_change(chunker: Chunker) -> None:
    sections = "".join(f"# H{i}\n\n{'Some words of a section, again. ' * 6}\n\n" for i in range(5))
    before = chunk(chunker, document(text=sections))
    after = chunk(chunker, document(text="# New\n\nInserted words, a few. " * 4 + "\n\n" + sections))
    kept = set(before["chunk_id"].to_pylist())
    assert kept <= set(after["chunk_id"].to_pylist())
    assert not set(before["row_hash"].to_pylist()) & set(after["row_hash"].to_pylist())


@pytest.mark.parametrize(
    "change",
    [
        {"title": "Other"}, {"title": None}, {"uri": "file:///b"}, {"external_id": "1"}, {"mime": "text/html"},
        {"language": "en"}, {"access_label": "z"}, {"modified_at": None}, {"page_starts": [0, 50]},
    ],
)  # fmt: skip
def test_the_row_hash_covers_what_the_index_stores(chunker: Chunker, change: dict[str, Any]) -> None:
    one, two = chunk(chunker, document()), chunk(chunker, document(**change))
    assert one["chunk_id"].to_pylist() == two["chunk_id"].to_pylist()
    assert not set(one["row_hash"].to_pylist()) & set(two["row_hash"].to_pylist())


def test_the_row_hash_leaves_out_what_the_index_does_not_store(chunker: Chunker) -> None:
    one, two = chunk(chunker, document()), chunk(chunker, document(doc_hash="e", ingested_at=datetime.now(UTC)))
    assert one["row_hash"].to_pylist() == two["row_hash"].to_pylist()


@pytest.mark.parametrize(
    ("page_starts", "position", "page"),
    [(None, 5, None), ([], 5, None), ([0, 10, 10, 20], 0, 1), ([0, 10, 20], 9, 1), ([0, 10, 20], 10, 2), ([3], 0, 1)],
)
def test_pages(page_starts: list[int] | None, position: int, page: int | None) -> None:
    assert rows.page_of(page_starts, position) == page


def test_batches_are_bounded_and_chunkers_are_made_once_per_source(
    chunker: Chunker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "_BATCH_ROWS", 5)
    asked: list[str] = []

    def chunker_of(source: str) -> Chunker:
        asked.append(source)
        return chunker

    documents = pa.RecordBatch.from_pylist([document(str(i), source=f"s{i % 2}") for i in range(6)], schema=DOCUMENTS)
    per_document = len(chunker.split(TEXT))
    batches = list(rows.chunk_batches([documents, documents], chunker_of))
    assert sum(batch.num_rows for batch in batches) == 12 * per_document
    assert max(batch.num_rows for batch in batches) < 5 + per_document
    assert asked == ["s0", "s1"]
    assert not list(rows.chunk_batches([], chunker_of))
