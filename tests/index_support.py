"""Chunks with vectors for index tests, made from numbers so that every process makes the same ones."""

import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from rag_core import ids
from rag_core.config import IndexConfig
from rag_core.tables.delta import row_schema
from rag_core.tables.store import Store

DIM = 16
MODEL = ids.fingerprint({"model": "test"})
PARTITION = "handbook__00"
CONFIG = IndexConfig(lite_idle_s=5.0, write_batch=40, timeout_s=20.0)
ROWS = pa.schema(
    [*row_schema("chunks"), pa.field("model_fingerprint", pa.string()), pa.field("vector", pa.list_(pa.float32(), DIM))]
)
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def chunk_id(number: int, version: str = "v1") -> str:
    return ids.chunk_id(doc_id(number), f"{number}-{version}", 0)


def doc_id(number: int) -> str:
    return ids.doc_id("handbook", f"page-{number}")


def word(number: int, version: str = "v1") -> str:
    """A word that only this version of the chunk has."""
    return f"word{number}{version}"


def vector(number: int, version: str = "v1", dim: int = DIM) -> np.ndarray:
    values = np.random.default_rng([number, *version.encode()]).normal(size=dim).astype(np.float32)
    return values / np.linalg.norm(values)


def rows(numbers: Iterable[int], version: str = "v1", title: str | None = "Title", **overrides: object) -> pa.Table:
    """One chunk for each number; `version` changes text, id and vector, `title` only the row's hash."""
    made = [_row(number, version, title) | overrides for number in numbers]
    return pa.Table.from_pylist(made, schema=ROWS)


def hashes(table: pa.Table) -> dict[str, str]:
    return dict(zip(table["chunk_id"].to_pylist(), table["row_hash"].to_pylist(), strict=True))


def _row(number: int, version: str, title: str | None) -> dict[str, object]:
    text = f"Common words and {word(number, version)} here."
    return {
        "partition_key": PARTITION,
        "chunk_id": chunk_id(number, version),
        "doc_id": doc_id(number),
        "source": "handbook",
        "ordinal": 0,
        "text": text,
        "context": "| a | b |" if number % 2 else "",
        "heading_path": ["Part", f"Chapter {number}"],
        "char_start": 10,
        "char_end": 10 + len(text),
        "page": number % 3 or None,
        "token_count": 7,
        "text_hash": ids.text_hash(text),
        "external_id": str(number),
        "uri": f"file:///handbook/page-{number}.md",
        "title": title,
        "mime": "text/markdown",
        "language": "en",
        "modified_at": EPOCH + timedelta(days=number),
        "access_label": ids.access_label([f"group-{number % 4}"]),
        "doc_hash": ids.text_hash(text),
        "chunker_fingerprint": "c",
        "row_hash": ids.digest(text, title or ""),
        "model_fingerprint": MODEL,
        "vector": vector(number, version),
    }


def sync_in_process(root: str, collection: str) -> None:
    """Replace chunks 0 to 29 by a second version and add 100 to 199, as a run does; for the crash tests."""
    from rag_core.index.client import connect
    from rag_core.index.journal import SyncJournal
    from rag_core.index.sync import sync_partition

    store = Store(root)
    changed = pa.concat_tables([rows(range(30), "v2"), rows(range(100, 200))])
    wanted = pa.concat_tables([changed, rows(range(30, 100))])
    journal = SyncJournal(store, collection)
    with connect(CONFIG, store) as client:
        client.ensure_collection(collection, dim=DIM, model_fingerprint=MODEL)
        sync_partition(
            client,
            collection,
            PARTITION,
            changes=[changed],
            delete_ids=[chunk_id(number) for number in range(30)],
            expected_count=wanted.num_rows,
            expected=lambda: hashes(wanted),
            rows_for=lambda asked: [wanted.filter(pa.compute.is_in(wanted["chunk_id"], pa.array(asked)))],
            journal=journal,
        )
    journal.end(PARTITION)


def lease_and_wait(root: str, ready: str) -> None:
    """Hold a lease until killed; the file `ready` gets the server's address."""
    import time

    from rag_core.index.lite_server import lease

    with lease(Store(root), CONFIG) as uri:
        Path(ready).write_text(uri)
        time.sleep(600)


if __name__ == "__main__":
    {"sync": sync_in_process, "lease": lease_and_wait}[sys.argv[1]](*sys.argv[2:])
