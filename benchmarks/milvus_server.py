"""A Milvus server by size: rows written a second, seconds until indexed, memory a chunk takes, searches a second.

    python -m benchmarks.milvus_server --sizes 20000,40000,80000 --index HNSW

For each size a fresh standalone server (of the package `milvus`, 2.3.5) is filled through the platform's own client,
with rows of the platform's schema: 800 characters of the example corpus each, random unit vectors. Memory is the
resident size of the server's process when everything is indexed and loaded; it is printed beside the bytes of the
vectors alone, with what each further chunk took between two sizes, where the fixed cost of a server cancels.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.memory import MIB
from rag_core import ids
from rag_core.config import IndexConfig
from rag_core.index import schema
from rag_core.index.client import IndexClient, connect
from rag_core.tables.store import Store
from tests.production.services import milvus

_COLLECTION = "sizing"
_MODEL = "benchmark"
_BATCH = 2_000
_PARTITIONS = 8
_CHARS = 800  # of a chunk of some 170 tokens
_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_BUILD = {"HNSW": {"M": 16, "efConstruction": 200}, "IVF_FLAT": {"nlist": 1024}, "IVF_SQ8": {"nlist": 1024}, "FLAT": {}}
_SEARCH = {"HNSW": {"ef": 64}, "IVF_FLAT": {"nprobe": 16}, "IVF_SQ8": {"nprobe": 16}, "FLAT": {}}
_STATUS = Console(stderr=True)


@dataclass(frozen=True)
class Measured:
    """What one size took.

    Attributes:
        chunks: Rows of the collection.
        index: Type of the dense index.
        upsert_rows_per_s: While rows were written, flushed at the end.
        index_s: From the last flush until every row is in the index.
        rss_mib: Resident size of the server, everything loaded.
        vectors_mib: The vectors alone, in float32.
        p50_ms: Median of dense searches for 10 hits, one at a time.
        p99_ms: Their 99th percentile.
        searches_per_s: Of eight threads.
    """

    chunks: int
    index: str
    upsert_rows_per_s: float
    index_s: float
    rss_mib: float
    vectors_mib: float
    p50_ms: float
    p99_ms: float
    searches_per_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="20000,40000,80000", help="numbers of chunks, comma-separated")
    parser.add_argument("--index", default="HNSW", choices=sorted(_BUILD), help="dense index")
    parser.add_argument("--dim", type=int, default=384, help="dimension of the vectors")
    parser.add_argument("--searches", type=int, default=400, help="searches one at a time, and again by eight threads")
    parser.add_argument("--json", action="store_true", help="one JSON object a size")
    args = parser.parse_args()
    found = []
    for size in (int(text) for text in args.sizes.split(",")):
        with tempfile.TemporaryDirectory() as folder, milvus(Path(folder)) as uri:
            config = IndexConfig(
                uri=uri, lexical=False, index_type=args.index, build_params=_BUILD[args.index], timeout_s=120
            )
            with connect(config, Store(folder)) as client:
                found.append(_measure(client, args, size, _server(folder)))
        if args.json:
            print(json.dumps(asdict(found[-1])))
    if not args.json:
        _report(found)


def _measure(client: IndexClient, args: argparse.Namespace, size: int, server: psutil.Process) -> Measured:
    client.ensure_collection(_COLLECTION, dim=args.dim, model_fingerprint=_MODEL)
    keys = [f"sizing__{number:02d}" for number in range(_PARTITIONS)]
    for key in keys:
        client.ensure_partition(_COLLECTION, key)
    random = np.random.default_rng(1)
    upsert_s = 0.0
    with Progress(console=_STATUS, disable=not _STATUS.is_terminal) as progress:
        task = progress.add_task(f"{size:,} chunks", total=size)
        for number, rows in enumerate(sizing_rows(size, args.dim, random)):
            started = time.perf_counter()
            client.upsert(_COLLECTION, keys[number % _PARTITIONS], rows)
            upsert_s += time.perf_counter() - started
            progress.advance(task, rows.num_rows)
    started = time.perf_counter()
    client.flush(_COLLECTION)
    upsert_s += time.perf_counter() - started
    started = time.perf_counter()
    client.wait_until_indexed(_COLLECTION)
    index_s = time.perf_counter() - started
    client.load(_COLLECTION)
    assert client.count(_COLLECTION) == size
    times, searches_per_s = _search(client, args, random)
    return Measured(
        chunks=size,
        index=args.index,
        upsert_rows_per_s=size / upsert_s,
        index_s=index_s,
        rss_mib=server.memory_info().rss / MIB,
        vectors_mib=size * args.dim * 4 / MIB,
        p50_ms=statistics.median(times) * 1000,
        p99_ms=sorted(times)[int(len(times) * 0.99)] * 1000,
        searches_per_s=searches_per_s,
    )


def _search(client: IndexClient, args: argparse.Namespace, random: np.random.Generator) -> tuple[list[float], float]:
    questions = _unit(random, args.searches, args.dim)

    def ask(question: np.ndarray) -> float:
        started = time.perf_counter()
        client.search(
            _COLLECTION, field=schema.DENSE, query=question, limit=10, fields=["text"], params=_SEARCH[args.index],
            consistency="Eventually",
        )  # fmt: skip
        return time.perf_counter() - started

    for question in questions[:20]:
        ask(question)
    times = [ask(question) for question in questions]
    with ThreadPoolExecutor(8) as pool:
        started = time.perf_counter()
        list(pool.map(ask, questions))
        return times, len(questions) / (time.perf_counter() - started)


def sizing_rows(size: int, dim: int, random: np.random.Generator) -> Iterator[pa.RecordBatch]:
    """Make rows of the platform's schema: cuts of the example corpus, random unit vectors."""
    examples = Path(__file__).resolve().parents[1] / "examples" / "corpus"
    texts = "\n".join(path.read_text(encoding="utf-8") for path in sorted(examples.rglob("*.md")))
    for start in range(0, size, _BATCH):
        numbers = range(start, min(size, start + _BATCH))
        yield pa.RecordBatch.from_pylist([_chunk(texts, number) for number in numbers]).append_column(
            pa.field("vector", pa.list_(pa.float32(), dim)),
            pa.FixedSizeListArray.from_arrays(_unit(random, len(numbers), dim).ravel(), dim),
        )


def _chunk(texts: str, number: int) -> dict[str, object]:
    start = (number * 131) % (len(texts) - _CHARS)
    text = f"{number} {texts[start : start + _CHARS]}"
    chunk_id = ids.text_hash(str(number))
    return {
        "chunk_id": chunk_id, "doc_id": ids.text_hash(str(number // 5)), "source": "sizing", "mime": "text/markdown",
        "language": "en", "access_label": ids.text_hash("label"), "title": f"Document {number // 5}",
        "uri": f"s3://documents/sizing/{number // 5}.md", "external_id": f"{number // 5}.md", "text": text,
        "context": "", "heading_path": ["Part", "Section"], "text_hash": ids.text_hash(text), "row_hash": chunk_id,
        "model_fingerprint": _MODEL, "modified_at": _NOW, "ordinal": number % 5, "char_start": 0,
        "char_end": len(text), "page": 1,
    }  # fmt: skip


def _unit(random: np.random.Generator, count: int, dim: int) -> np.ndarray:
    vectors = random.normal(size=(count, dim)).astype(np.float32)
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _server(folder: str) -> psutil.Process:
    """Find the server's own process, which runs in a session of its own."""
    for process in psutil.process_iter(["cmdline"]):
        if f"{folder}/milvus/bin/milvus" in " ".join(process.info["cmdline"] or ()):
            return process
    raise SystemExit("the process of the Milvus server was not found")


def _report(found: Sequence[Measured]) -> None:
    table = Table(title=f"Milvus standalone 2.3.5, {found[0].index}, rows of the platform's schema")
    for name in ("chunks", "rows/s", "index s", "RSS MiB", "vectors MiB", "KiB a further chunk", "p50 ms", "p99 ms",
                 "searches/s, 8 threads"):  # fmt: skip
        table.add_column(name, justify="right")
    before: Measured | None = None
    for one in found:
        further = (
            "" if before is None else f"{(one.rss_mib - before.rss_mib) * 1024 / (one.chunks - before.chunks):.2f}"
        )
        table.add_row(
            f"{one.chunks:,}", f"{one.upsert_rows_per_s:,.0f}", f"{one.index_s:.1f}", f"{one.rss_mib:,.0f}",
            f"{one.vectors_mib:,.0f}", further, f"{one.p50_ms:.1f}", f"{one.p99_ms:.1f}", f"{one.searches_per_s:,.0f}",
        )  # fmt: skip
        before = one
    Console(width=None if Console().is_terminal else 120).print(table)


if __name__ == "__main__":
    main()
