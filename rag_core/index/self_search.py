"""The second read path: a row must be found by its own vector, not only be listed by its id.

A segment whose index was not built, was built of other vectors, or is not loaded answers reads by id and is silent
in searches. Rows are sampled; the vectors come from the table, not from Milvus.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from rag_core.config import IndexConfig
from rag_core.index import schema
from rag_core.index.client import IndexClient
from rag_core.index.ledger import LedgerTables
from rag_core.index.vectors import decoded, tolerance
from rag_core.tables.delta import in_set

_LIMIT: Final = 10
_THOROUGH: Final = 1_000  # hits of the second, thorough search
_NLIST: Final = 128  # of Milvus and Lite, where the configuration says nothing
_SAME: Final = 1e-5  # difference of two scores that counts as none
_AT_ONCE: Final = 256  # vectors in memory


def sample(chunk_ids: Sequence[str], size: int, seed: int = 0) -> list[str]:
    """Draw ids without replacement, the same ones whenever ids, size and seed are the same.

    Args:
        chunk_ids: In any order, each once.
        size: How many; all of them if there are fewer.
        seed: Another seed draws others.

    Returns:
        The drawn ids, sorted.
    """
    ordered = sorted(chunk_ids)
    if size >= len(ordered):
        return ordered
    drawn = np.random.default_rng(seed).choice(len(ordered), size, replace=False)
    return [ordered[number] for number in sorted(drawn)]


def unsearchable(
    client: IndexClient, tables: LedgerTables, partition_key: str, chunk_ids: Sequence[str]
) -> tuple[list[str], int]:
    """Search rows by their own vectors, in their partition.

    A row is searchable if Milvus holds the table's vector for it and a search by that vector returns it. An approximate
    index may miss it in an ordinary search, which is a matter of recall: it counts if a thorough one misses it as well.
    Where a thousand rows and more have the very same vector, the row need not be among those returned.

    Args:
        client: Where to search.
        tables: The collection's; embeddings has the vectors.
        partition_key: The partition.
        chunk_ids: Rows that are listed there.

    Returns:
        Ids that are not searchable, sorted, and how many rows were searched: one whose vector is not in the table
        cannot be.
    """
    missed: list[str] = []
    searched = 0
    for start in range(0, len(chunk_ids), _AT_ONCE):
        vectors = _vectors(tables, partition_key, chunk_ids[start : start + _AT_ONCE])
        stored = client.fetch(tables.collection, partition_key, list(vectors), [schema.DENSE])
        searched += len(vectors)
        for chunk_id, vector in vectors.items():
            held = _holds(stored.get(chunk_id), vector, tables.index.vector_type)
            if not held or not _finds(client, tables, partition_key, chunk_id, vector):
                missed.append(chunk_id)
    return sorted(missed), searched


def _vectors(tables: LedgerTables, partition_key: str, chunk_ids: Sequence[str]) -> dict[str, np.ndarray]:
    part = tables.embeddings.of(partition_key)
    rows = part.read(["chunk_id", "vector"], in_set("chunk_id", chunk_ids))
    if not rows.num_rows:
        return {}
    return dict(zip(rows["chunk_id"].to_pylist(), schema.vectors_of(rows), strict=True))


def _holds(row: Mapping[str, Any] | None, vector: np.ndarray, vector_type: str) -> bool:
    stored = decoded(row[schema.DENSE] if row else None, vector_type)
    return stored.shape == vector.shape and bool(np.allclose(stored, vector, rtol=0.0, atol=tolerance(vector_type)))


def _finds(client: IndexClient, tables: LedgerTables, partition_key: str, chunk_id: str, vector: np.ndarray) -> bool:
    def hits(limit: int, params: Mapping[str, Any]) -> list[tuple[float, dict[str, Any]]]:
        return client.search(
            tables.collection,
            field=schema.DENSE,
            query=vector,
            limit=limit,
            fields=(),
            partition_keys=[partition_key],
            params=params,
        )

    if _has(hits(_LIMIT, tables.index.search_params), chunk_id):
        return True
    lite = client.capabilities.kind == "lite"
    found = hits(_THOROUGH, thorough_params(tables.index, _THOROUGH, lite=lite))
    return _has(found, chunk_id) or (len(found) == _THOROUGH and found[0][0] - found[-1][0] <= _SAME)


def _has(hits: Sequence[tuple[float, Mapping[str, Any]]], chunk_id: str) -> bool:
    return any(row[schema.PRIMARY] == chunk_id for _, row in hits)


def thorough_params(index: IndexConfig, limit: int, *, lite: bool) -> dict[str, Any]:
    """Return search parameters with which an index misses next to nothing among `limit` hits, whatever it costs."""
    if index.index_type == "AUTOINDEX" and not lite:
        return {"level": 10}
    if index.index_type.startswith(("HNSW", "AUTOINDEX")):
        return {"ef": 4 * limit}
    if index.index_type.startswith(("IVF", "SCANN", "GPU_IVF")):
        return {"nprobe": index.build_params.get("nlist", _NLIST)}
    if index.index_type == "DISKANN":
        return {"search_list": 4 * limit}
    if index.index_type == "GPU_CAGRA":
        return {"itopk_size": limit}
    return {}
