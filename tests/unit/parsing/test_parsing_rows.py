"""Rows of the documents table."""

from datetime import UTC, datetime

import pyarrow as pa
import pytest

from rag_core import ids
from rag_core.errors import ObjectGoneError, SourceError
from rag_core.parsing.rows import SourceDefaults, document_batches
from rag_core.parsing.sandbox import InlineParser
from rag_core.parsing.settings import ParseSettings
from rag_core.schemas import DOCUMENTS
from rag_core.sources.base import SourceObject
from tests.unit.parsing.parsing_helpers import an_object

NOW = datetime(2024, 1, 2, tzinfo=UTC)
MAIL = b"""From: a@x.org
To: b@x.org
Subject: Hi
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=B

--B

body
--B
Content-Type: text/plain
Content-Disposition: attachment; filename=n.txt

note
--B--
"""


def batches(
    files: dict[str, bytes | Exception], *, principals: tuple[str, ...] = (), **settings: object
) -> list[pa.RecordBatch]:
    def read(item: SourceObject) -> bytes:
        content = files[item.key]
        if isinstance(content, Exception):
            raise content
        return content

    chosen = ParseSettings.model_validate(settings)
    items = [an_object(key, data if isinstance(data, bytes) else b"") for key, data in files.items()]
    return list(
        document_batches(
            items,
            read=read,
            parser=InlineParser(chosen),
            settings=chosen,
            defaults=SourceDefaults(principals=principals, buckets=8),
            ingested_at=NOW,
        )
    )


def rows(files: dict[str, bytes | Exception], **settings: object) -> list[dict[str, object]]:
    return pa.Table.from_batches(batches(files, **settings), schema=DOCUMENTS).to_pylist()  # type: ignore[no-any-return]


def test_a_row_has_ids_partition_and_access_label() -> None:
    (row,) = rows({"a/b.md": b"# T\n\ntext"})
    document = ids.doc_id("docs", "a/b.md")
    assert (row["doc_id"], row["object_id"], row["object_key"], row["member"]) == (document, document, "a/b.md", "")
    assert row["partition_key"] == ids.partition_key("docs", ids.bucket_of(document, 8), 8)
    assert row["principals"] == ["source:docs"]
    assert row["access_label"] == ids.access_label(["source:docs"])
    assert row["text_hash"] == ids.text_hash("# T\n\ntext")
    assert row["ingested_at"] == NOW


def test_members_share_partition_and_object() -> None:
    mail, note = rows({"m.eml": MAIL}, principals=("group:b", "group:a"))
    assert note["member"] == "n.txt"
    assert note["doc_id"] != mail["doc_id"]
    assert (note["object_id"], note["partition_key"]) == (mail["doc_id"], mail["partition_key"])
    assert note["principals"] == ["group:a", "group:b"]


def test_doc_hash_follows_what_later_stages_use() -> None:
    (first,) = rows({"a.md": b"# T\n\ntext"})
    (same,) = rows({"a.md": b"# T\n\ntext   \n"})
    (text,) = rows({"a.md": b"# T\n\nother"})
    (label,) = rows({"a.md": b"# T\n\ntext"}, principals=("group:a",))
    assert first["content_hash"] != same["content_hash"]
    assert first["doc_hash"] == same["doc_hash"]
    assert len({first["doc_hash"], text["doc_hash"], label["doc_hash"]}) == 3


def test_an_object_too_large_is_rejected_without_being_read() -> None:
    item = an_object("big.txt", b"x" * 50)
    settings = ParseSettings(max_bytes=10)
    (batch,) = document_batches(
        [item],
        read=lambda _: pytest.fail("was read"),
        parser=InlineParser(settings),
        settings=settings,
        defaults=SourceDefaults((), 8),
        ingested_at=NOW,
    )
    (row,) = batch.to_pylist()
    assert (row["status"], row["size_bytes"]) == ("rejected", 50)
    assert "50 bytes, the limit is 10" in row["reason"]


def test_a_gone_object_has_no_row_and_an_unreadable_one_stops_with_its_key() -> None:
    assert [row["object_key"] for row in rows({"a.md": ObjectGoneError("gone"), "b.md": b"x"})] == ["b.md"]
    with pytest.raises(SourceError, match=r"docs: object 'a\.md': connection lost"):
        rows({"a.md": SourceError("connection lost")})


@pytest.mark.slow
def test_batches_are_bounded_by_rows_and_bytes() -> None:
    many = batches({f"{i}.txt": b"x" for i in range(300)})
    assert [batch.num_rows for batch in many] == [256, 44]
    large = batches({f"{i}.txt": b"x" * 3_000_000 for i in range(4)})
    assert [batch.num_rows for batch in large] == [3, 1]
    assert all(batch.schema.equals(DOCUMENTS) for batch in many + large)
    assert batches({}) == []
