"""Declared tests: seconds and peak memory by table, at several numbers of chunks, beside the time of embedding them.

    python -m benchmarks.quality --sizes 10000,30000
    python -m benchmarks.quality --sizes 100000 --corpus shared/corpora/cranfield/docs.jsonl

Tables are made, not measured: texts of a corpus (BEIR's JSON Lines, or the example corpus), each repeated with other
words mixed in, and random unit vectors. Each table is tested in a process of its own, so that its peak memory is its
own, with every test that is declared for it and nothing tested before.
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.memory import MIB, high_water_bytes
from rag_core import ids
from rag_core.config import FilesSource, RagConfig, StoreConfig
from rag_core.quality.running import run_tests
from rag_core.tables.change import TableChange, commit, stage
from rag_core.tables.delta import TableSlice, row_schema
from rag_core.tables.store import Store

_TABLES = ("documents", "chunks", "embeddings", "index_partitions")
_LANE = "benchmark"
_CHUNKS_OF_DOCUMENT = 4
_BATCH_DOCUMENTS = 500
_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000", help="numbers of chunks, comma-separated")
    parser.add_argument("--corpus", type=Path, help="JSON Lines with `text`; default: the example corpus")
    parser.add_argument("--dim", type=int, default=384, help="dimension of the vectors")
    parser.add_argument("--buckets", type=int, default=8, help="partitions")
    parser.add_argument("--chunks-per-s", type=float, default=100.0, help="rate of embedding to compare with")
    parser.add_argument("--json", action="store_true", help="one JSON object a size")
    args = parser.parse_args()
    texts = _texts(args.corpus)
    for size in (int(text) for text in args.sizes.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            _make_tables(Path(folder), texts, size, args.dim, args.buckets)
            rows = [_in_process(Path(folder), table, args.buckets) for table in _TABLES]
        _report(size, rows, args)


def _report(size: int, rows: Sequence[dict[str, Any]], args: argparse.Namespace) -> None:
    seconds, embedding = sum(row["seconds"] for row in rows), size / args.chunks_per_s
    if args.json:
        print(
            json.dumps({"chunks": size, "tables": rows, "seconds": seconds, "share_of_embedding": seconds / embedding})
        )
        return
    print(f"\n{size:,} chunks, {args.buckets} partitions, vectors of {args.dim}")
    print(f"{'table':<18}{'rows':>9}{'tests':>7}{'failed':>8}{'seconds':>9}{'peak MiB':>10}{'before':>8}")
    for row in rows:
        print(
            f"{row['table']:<18}{row['rows']:>9,}{row['tests']:>7}{row['failed']:>8}{row['seconds']:>9.1f}"
            f"{row['peak_mib']:>10,.0f}{row['before_mib']:>8,.0f}"
        )
    print(
        f"all {seconds:.1f} s, {seconds / embedding:.1%} of the {embedding:,.0f} s that embedding takes at "
        f"{args.chunks_per_s:g} chunks/s"
    )


def _in_process(folder: Path, table: str, buckets: int) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_test_table, (folder, table, buckets))


def _test_table(folder: Path, table: str, buckets: int) -> dict[str, Any]:
    """Test a table in this process, which does nothing else; the peak includes Great Expectations itself."""
    from rag_core.quality import suites  # noqa: F401  (its import is memory of every process that tests)

    before = high_water_bytes(multiprocessing.current_process().pid or 0)
    current = TableSlice.newest(Store(str(folder)), table)
    started = time.perf_counter()
    results = run_tests(current, _config(folder, buckets), run_id="benchmark")
    return {
        "table": table,
        "rows": current.count(),
        "tests": len({result.test for result in results}),
        "failed": len({result.test for result in results if result.outcome != "pass"}),
        "seconds": time.perf_counter() - started,
        "peak_mib": high_water_bytes(multiprocessing.current_process().pid or 0) / MIB,
        "before_mib": before / MIB,
    }


def _config(folder: Path, buckets: int) -> RagConfig:
    source = FilesSource(kind="files", name="benchmark", root=folder)
    return RagConfig(store=StoreConfig(root=str(folder)), sources=(source,), buckets=buckets)


def _texts(corpus: Path | None) -> list[str]:
    if corpus is not None:
        with corpus.open(encoding="utf-8") as lines:
            return [text for line in lines if (text := json.loads(line)["text"])]
    examples = Path(__file__).resolve().parents[1] / "examples" / "corpus"
    return [path.read_text(encoding="utf-8") for path in sorted(examples.rglob("*.md"))]


def _make_tables(folder: Path, texts: Sequence[str], chunks: int, dim: int, buckets: int) -> None:
    store, random = Store(str(folder)), np.random.default_rng(1)
    documents = -(-chunks // _CHUNKS_OF_DOCUMENT)
    for start in range(0, documents, _BATCH_DOCUMENTS):
        count = min(_BATCH_DOCUMENTS, documents - start)
        rows = [_document(texts, start + n, buckets, random) for n in range(count)]
        cut = [chunk for row in rows for chunk in _chunks(row)]
        vectors = random.normal(size=(len(cut), dim)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        _append(store, "documents", rows)
        _append(store, "chunks", cut)
        _append(store, "embeddings", cut, vector=pa.FixedSizeListArray.from_arrays(vectors.ravel(), dim))
        _append(store, "index_partitions", cut)


def _append(store: Store, table: str, rows: Sequence[dict[str, Any]], **columns: pa.Array) -> None:
    lane = None if table == "documents" else _LANE
    current = TableSlice.newest(store, table, sorted({row["partition_key"] for row in rows}), lane=lane)
    fields = list(row_schema(table))
    arrays = [
        columns[field.name].cast(field.type)
        if field.name in columns
        else pa.array([row[field.name] for row in rows], field.type)
        for field in fields
    ]
    files = stage(store, table, [pa.record_batch(arrays, schema=pa.schema(fields))], lane)
    commit(TableChange(base=current, replace_column="doc_id", files=files), run_id="benchmark")


def _document(texts: Sequence[str], number: int, buckets: int, random: np.random.Generator) -> dict[str, Any]:
    words = texts[number % len(texts)].split()
    shuffled = random.permutation(len(words))[: len(words) // 10]
    for place in shuffled:  # another document of the same text: a tenth of its words are others
        words[place] = f"{words[place]}{number}"
    text, key = " ".join(words), f"{number}.md"
    doc_id = ids.doc_id("benchmark", key)
    return {
        "partition_key": ids.partition_key("benchmark", ids.bucket_of(doc_id, buckets), buckets), "doc_id": doc_id,
        "source": "benchmark", "object_key": key, "object_id": doc_id, "member": "", "external_id": key,
        "uri": f"file:///{key}", "title": f"Document {number}", "mime": "text/markdown", "language": "en", "text": text,
        "page_starts": None, "modified_at": _NOW, "size_bytes": len(text), "object_fingerprint": key,
        "content_hash": ids.text_hash(text), "text_hash": ids.text_hash(text), "principals": ["everyone"],
        "access_label": "label", "status": "ok", "reason": None, "parser_fingerprint": "benchmark",
        "doc_hash": ids.text_hash(text), "ingested_at": _NOW,
    }  # fmt: skip


def _chunks(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    text = document["text"]
    size = max(1, -(-len(text) // _CHUNKS_OF_DOCUMENT))
    for ordinal in range(_CHUNKS_OF_DOCUMENT):
        start, end = ordinal * size, min(len(text), (ordinal + 1) * size)
        part = text[start:end] or "-"
        text_hash = ids.text_hash(part)
        yield {
            **document, "chunk_id": ids.chunk_id(document["doc_id"], text_hash, ordinal), "ordinal": ordinal,
            "text": part, "context": "", "heading_path": [], "char_start": start, "char_end": start + len(part),
            "page": None, "token_count": max(1, len(part.split())), "text_hash": text_hash,
            "chunker_fingerprint": "benchmark", "row_hash": ids.digest(text_hash, document["doc_id"]),
            "model_fingerprint": "benchmark", "indexed_at": _NOW,
        }  # fmt: skip


if __name__ == "__main__":
    main()
