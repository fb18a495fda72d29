"""Clustered vectors in a Delta table and in a collection, for the tests of ANN recall."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

from rag_core import ids
from rag_core.config import IndexConfig
from rag_core.index.client import IndexClient
from rag_core.tables.delta import TableSlice, ensure_table, row_schema
from rag_core.tables.store import Store
from tests.index_support import MODEL, rows

LANE = "lane"


def clustered(count: int, dim: int, *, clusters: int = 40, seed: int = 0) -> np.ndarray:
    """Unit vectors around random centres: (count, dim) float32."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(clusters, dim))
    made = centres[random.integers(clusters, size=count)] + 0.35 * random.normal(size=(count, dim))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def with_vectors(vectors: np.ndarray, keys: Sequence[str]) -> pa.Table:
    """One chunk for each vector, dealt to the partitions in turn; source and label follow from the number."""
    count, dim = vectors.shape
    made = rows(range(count)).drop_columns(["vector", "partition_key", "source"])
    partitions = [keys[number % len(keys)] for number in range(count)]
    made = made.append_column("partition_key", pa.array(partitions))
    made = made.append_column("source", pa.array([key.split("__")[0] for key in partitions]))
    return made.append_column("vector", pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim))


def store_rows(store: Store, table: pa.Table, *, rows_in_file: int = 1_000) -> None:
    """Write chunks and embeddings of one lane, as several files."""
    for name in ("chunks", "embeddings"):
        delta = ensure_table(store, name)
        for start in range(0, table.num_rows, rows_in_file):
            part = table.slice(start, rows_in_file)
            columns = {field.name: part[field.name].cast(field.type) for field in row_schema(name)}
            lane = pa.array([LANE] * part.num_rows)
            write_deltalake(delta, pa.table({"lane": lane, **columns}), mode="append")


def slices(store: Store) -> tuple[TableSlice, TableSlice]:
    """The lane of embeddings, and of chunks."""
    return TableSlice.newest(store, "embeddings", lane=LANE), TableSlice.newest(store, "chunks", lane=LANE)


def fill(client: IndexClient, collection: str, table: pa.Table, index: IndexConfig, *, dim: int) -> None:
    """Make the collection and write the rows into their partitions, in one segment for each."""
    client.ensure_collection(collection, dim=dim, model_fingerprint=MODEL, config=index)
    for key in sorted(set(table["partition_key"].to_pylist())):
        client.ensure_partition(collection, key)
        part = table.filter(pa.compute.equal(table["partition_key"], key))
        for start in range(0, part.num_rows, 1_000):
            client.upsert(collection, key, part.slice(start, 1_000))
    client.flush(collection)


def access_label(number: int) -> str:
    return ids.access_label([f"group-{number % 4}"])
