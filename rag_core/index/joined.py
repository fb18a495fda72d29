"""Rows as Milvus takes them: chunks joined with their vectors, in bounded memory."""

from collections.abc import Iterator
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from rag_core.tables.delta import TableSlice, in_set

_SLICE_ROWS: Final = 16_384
_BATCH_ROWS: Final = 2_048
_VECTOR: Final = ("vector", "model_fingerprint")


def joined_rows(
    chunks: TableSlice, embeddings: TableSlice, chunk_ids: pa.Array | pa.ChunkedArray
) -> Iterator[pa.RecordBatch]:
    """Join chunks and vectors of the named chunks, a bounded number at a time.

    Args:
        chunks: Narrowed to a lane and a partition.
        embeddings: Likewise.
        chunk_ids: Which; in any order.

    Yields:
        All columns of chunks, then vector and model_fingerprint. A chunk without a row in one of the tables is left
        out. Columns of equal name are those of chunks.
    """
    ordered = chunk_ids.take(pc.sort_indices(chunk_ids)) if len(chunk_ids) else chunk_ids
    for offset in range(0, len(ordered), _SLICE_ROWS):
        names = ordered.slice(offset, _SLICE_ROWS)
        names = names.combine_chunks() if isinstance(names, pa.ChunkedArray) else names
        vectors = embeddings.read(["chunk_id", *_VECTOR], in_set("chunk_id", names)).combine_chunks()
        known = vectors["chunk_id"].combine_chunks()
        for batch in chunks.batches(where=in_set("chunk_id", names), batch_rows=_BATCH_ROWS):
            position = pc.index_in(batch.column("chunk_id"), known)
            joined = pa.Table.from_batches([batch]).filter(position.is_valid())
            taken = vectors.take(position.drop_null())
            for name in _VECTOR:
                joined = joined.append_column(taken.schema.field(name), taken[name])
            yield from joined.combine_chunks().to_batches()
