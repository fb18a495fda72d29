"""A store whose tables say what a source had, and an index that is brought up to date with them."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rag_core import ids, schemas
from rag_core.config import RagConfig
from rag_core.embedding.model import ModelSpec
from rag_core.generation import Generation
from rag_core.index.client import IndexClient
from rag_core.stages.common import StageOutput
from rag_core.stages.index import IndexTables, index_change
from rag_core.stages.receipts import read_receipts
from rag_core.tables.change import TableChange, commit, stage
from rag_core.tables.delta import TableSlice, row_schema
from rag_core.tables.store import Store
from tests.index_support import CONFIG, DIM, chunk_id, doc_id, rows

SOURCE = "handbook"
HERE, BESIDE = "handbook__00", "handbook__01"
CHUNKS = 3  # of each document
SPEC = ModelSpec(
    name="test", backend="openai", location="test", revision=None, dim=DIM, max_tokens=256, special_tokens=2,
    pooling="remote", normalise=True, query_prefix="", passage_prefix="", tokenizer_path="", content="test",
    max_content_tokens=254,
)  # fmt: skip
_names = count()


def chunk_numbers(number: int) -> range:
    return range(number * 10, number * 10 + CHUNKS)


def chunk_ids(number: int) -> list[str]:
    return [chunk_id(one) for one in chunk_numbers(number)]


def document(number: int, key: str = HERE, status: str = "ok") -> dict[str, Any]:
    text = f"Document {number}" if status == "ok" else ""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return {
        "partition_key": key,
        "doc_id": doc_id(number),
        "source": SOURCE,
        "object_key": f"page-{number}",
        "object_id": doc_id(number),
        "member": "",
        "external_id": f"page-{number}.md",
        "uri": f"file:///handbook/page-{number}.md",
        "title": "Title",
        "mime": "text/markdown",
        "language": "en",
        "text": text,
        "page_starts": None,
        "modified_at": now,
        "size_bytes": len(text),
        "object_fingerprint": "f",
        "content_hash": ids.text_hash(text),
        "text_hash": ids.text_hash(text),
        "principals": ["everybody"],
        "access_label": ids.access_label(["everybody"]),
        "status": status,
        "reason": None if status == "ok" else "planted",
        "parser_fingerprint": "p",
        "doc_hash": ids.digest(text, status),
        "ingested_at": now,
    }


def chunk_rows(numbers: Iterable[int], key: str = HERE) -> pa.Table:
    """Chunks of documents, as they are indexed."""
    made = [
        rows(
            [one],
            partition_key=key,
            doc_id=doc_id(number),
            ordinal=ordinal,
            uri=f"file:///handbook/page-{number}.md",
            external_id=f"page-{number}.md",
            access_label=ids.access_label(["everybody"]),
            model_fingerprint=SPEC.fingerprint,
        )
        for number in numbers
        for ordinal, one in enumerate(chunk_numbers(number))
    ]
    return pa.concat_tables(made) if made else rows([]).slice(0, 0)


def write_documents(store: Store, documents: Mapping[int, str], key: str = HERE) -> None:
    """Make a partition of the documents table hold these, in one commit, as a run does: number -> status."""
    base = TableSlice.newest(store, "documents", (key,))
    before = base.read(["doc_id", "status"]).to_pylist()
    had = {row["doc_id"]: row["status"] for row in before}
    wanted = {doc_id(number): status for number, status in documents.items()}
    changed = {one for one in {*had, *wanted} if had.get(one) != wanted.get(one)}
    new = [document(number, key, status) for number, status in documents.items() if doc_id(number) in changed]
    files = stage(store, "documents", pa.Table.from_pylist(new, schema=schemas.DOCUMENTS).to_batches()) if new else ()
    replaced = tuple(sorted(changed.intersection(had)))
    commit(TableChange(base, "object_id", files=files, replaced=replaced), run_id="documents")


class World:
    """Tables in a folder, and a collection of their own for each."""

    def __init__(self, root: Path, client: IndexClient) -> None:
        self.store, self.client = Store(str(root / "data")), client
        self.config = RagConfig.model_validate(
            {
                "store": {"root": str(root / "data")},
                "buckets": 2,
                "sources": [{"name": SOURCE, "kind": "files", "root": str(root)}],
                "index": CONFIG.model_dump(),
            }
        )
        self.generation = self.another()

    def another(self) -> Generation:
        """Make a generation of the same lanes with an empty collection of its own."""
        collection = f"deletions_{next(_names)}"
        self.client.ensure_collection(collection, dim=DIM, model_fingerprint=SPEC.fingerprint)
        return Generation(self.config, SPEC, collection, "c", "e")

    def have(self, documents: Mapping[int, str], key: str = HERE) -> None:
        """Bring the tables of a partition, except for the ledger, to what a source has: number -> status."""
        write_documents(self.store, documents, key)
        self.cut([number for number, status in documents.items() if status == "ok"], key)

    def cut(self, numbers: Iterable[int], key: str = HERE) -> None:
        """Make chunks and embeddings of a partition those of these documents."""
        wanted = chunk_rows(numbers, key)
        for name, lane in (("chunks", "c"), ("embeddings", "e")):
            base = TableSlice.newest(self.store, name, (key,), lane=lane)
            had = set(base.read(["doc_id"])["doc_id"].to_pylist())
            new = wanted.filter(pc.invert(pc.is_in(wanted["doc_id"], pa.array(sorted(had), pa.string()))))
            part = new.select(row_schema(name).names).cast(row_schema(name)).combine_chunks()
            files = stage(self.store, name, part.to_batches(), lane) if part.num_rows else ()
            gone = tuple(sorted(had.difference(wanted["doc_id"].to_pylist())))
            commit(TableChange(base, "doc_id", files=files, replaced=gone), run_id=name)

    def index(self, *keys: str, run_id: str = "run", generation: Generation | None = None) -> StageOutput:
        """Bring a collection up to date, as the stage does."""
        chosen = keys or (HERE,)
        names = ("chunks", "embeddings", "index_partitions")
        tables = IndexTables(*(TableSlice.newest(self.store, name, chosen) for name in names))
        output = index_change(tables, self.client, generation or self.generation, run_id=run_id)
        commit(output.change, run_id=run_id)
        output.after_commit()
        return output

    def receipts(self, **arguments: Any) -> list[dict[str, Any]]:
        """Read the receipts, the oldest first."""
        return read_receipts(self.store, **arguments).to_pylist()

    def held(self, generation: Generation | None = None) -> set[str]:
        """List the documents of which a collection has rows."""
        collection = (generation or self.generation).collection
        return {row["doc_id"] for row in self.client.list_rows(collection, None, ["doc_id"])}

    def ledger(self, generation: Generation | None = None) -> set[str]:
        """List the documents of which the ledger has rows."""
        collection = (generation or self.generation).collection
        return set(
            TableSlice.newest(self.store, "index_partitions", lane=collection).read(["doc_id"])["doc_id"].to_pylist()
        )

    def notes(self) -> list[Path]:
        """List the files of notes that were left."""
        return sorted(Path(self.store.root).glob("work/index/*/removals/*.parquet"))
