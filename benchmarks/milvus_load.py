"""The first load of a partition into a Milvus server: by upserts and by import of Parquet files.

    python -m benchmarks.milvus_load --sizes 5000,20000,80000 --index HNSW

For each size and way a fresh standalone server (of the package `milvus`, 2.3.5) is filled through the platform's own
sync: rows written, read back and compared, until every row is in the index and can be searched. The server's storage
is a folder, so an import reads its files from the same disk; a cluster with a bucket was not measured.
"""

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from benchmarks.milvus_server import sizing_rows
from rag_core.config import IndexConfig
from rag_core.config_index import BulkImportConfig
from rag_core.index.client import IndexClient, connect
from rag_core.index.sync import sync_partition
from rag_core.tables.store import Store
from tests.production.services import milvus

_COLLECTION, _PARTITION, _MODEL = "load", "load__00", "benchmark"
_BUILD = {"HNSW": {"M": 16, "efConstruction": 200}, "IVF_SQ8": {"nlist": 1024}, "FLAT": {}}


@dataclass(frozen=True)
class Loaded:
    """What one load took.

    Attributes:
        way: upsert or import.
        chunks: Rows.
        written_s: Until all rows were acknowledged, readable and compared.
        indexed_s: Until the index held all of them, from the beginning.
        steps: Seconds by step of the sync.
    """

    way: str
    chunks: int
    written_s: float
    indexed_s: float
    steps: dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="5000,20000,80000", help="numbers of chunks, comma-separated")
    parser.add_argument("--index", default="HNSW", choices=sorted(_BUILD), help="dense index")
    parser.add_argument("--dim", type=int, default=384, help="dimension of the vectors")
    parser.add_argument("--json", action="store_true", help="one line of JSON for each load instead of a table")
    args = parser.parse_args()
    found = [_load(args, int(size), way) for size in args.sizes.split(",") for way in ("upsert", "import")]
    if not args.json:
        _report(found, args)


def _load(args: argparse.Namespace, size: int, way: str) -> Loaded:
    with tempfile.TemporaryDirectory() as folder, milvus(Path(folder)) as uri:
        bulk = BulkImportConfig(to=f"{folder}/imports", min_rows=1) if way == "import" else None
        config = IndexConfig(
            uri=uri, lexical=False, index_type=args.index, build_params=_BUILD[args.index], timeout_s=120,
            bulk_import=bulk,
        )  # fmt: skip
        batches = list(sizing_rows(size, args.dim, np.random.default_rng(1)))
        with connect(config, Store(folder)) as client:
            loaded = _timed(client, args.dim, batches, way)
    if args.json:
        print(json.dumps(asdict(loaded)), flush=True)
    return loaded


def _timed(client: IndexClient, dim: int, batches: list[pa.RecordBatch], way: str) -> Loaded:
    client.ensure_collection(_COLLECTION, dim=dim, model_fingerprint=_MODEL)
    size = sum(batch.num_rows for batch in batches)
    started = time.perf_counter()
    result = sync_partition(
        client, _COLLECTION, _PARTITION, changes=batches, delete_ids=[], expected_count=size, expected=dict
    )  # fmt: skip
    written_s = time.perf_counter() - started
    if result.imported != (size if way == "import" else 0):
        raise SystemExit(f"{way}: {result.imported} of {size} rows were imported")
    client.wait_until_indexed(_COLLECTION)
    client.load(_COLLECTION)
    indexed_s = time.perf_counter() - started
    return Loaded(way, size, written_s, indexed_s, {step: round(s, 2) for step, s in result.seconds.items()})


def _report(found: list[Loaded], args: argparse.Namespace) -> None:
    table = Table(title=f"First load of a partition, Milvus standalone 2.3.5, {args.index}, {args.dim} dimensions")
    for name in ("way", "chunks", "written s", "rows/s", "indexed s", "rows/s indexed"):
        table.add_column(name, justify="right")
    for one in found:
        table.add_row(
            one.way, f"{one.chunks:,}", f"{one.written_s:.1f}", f"{one.chunks / one.written_s:,.0f}",
            f"{one.indexed_s:.1f}", f"{one.chunks / one.indexed_s:,.0f}",
        )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    main()
