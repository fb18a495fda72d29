"""Document frequencies for BM25, counted over the chunks and kept as a table that the manifest names a version of."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, write_deltalake

from rag_core import ids
from rag_core.chunking.model import embedded_text
from rag_core.index import bm25, lexical
from rag_core.index.bm25 import TermStatistics, count_terms
from rag_core.schemas import TERM_STATISTICS
from rag_core.tables.delta import TableSlice, ensure_table
from rag_core.tables.store import Store

TABLE = "term_statistics"

# Frequencies are counted on a sample of about this many chunks, so that the cost does not grow with the corpus; a share
# of 0.1 % is then known to a fifth of its value, and its logarithm much better.
_SAMPLE_CHUNKS = 20_000
# Counted anew once the number of chunks differs by more than this from what it was: an idf moves by a logarithm.
_TOLERANCE = 0.1


def refresh(store: Store, lane: str, *, run_id: str) -> int:
    """Count the chunks of a lane again if they have become many more or fewer.

    Returns:
        Version of the table that holds.
    """
    chunks = TableSlice.newest(store, "chunks", lane=lane)
    population = chunks.count()
    table = TableSlice.newest(store, TABLE, lane=lane)
    terms_fingerprint = ids.fingerprint({**lexical.fingerprint_parts(), **bm25.fingerprint_parts()})
    last = table.head(1, ["population"], pc.field("terms_fingerprint") == terms_fingerprint)
    counted: int | None = last["population"][0].as_py() if last.num_rows else None
    if counted is not None and abs(population - counted) <= _TOLERANCE * counted:
        return table.version
    statistics = count_terms(_terms(chunks, population))
    rows = pa.table(
        {
            "lane": pa.repeat(pa.scalar(lane), len(statistics.frequencies)),
            "term_id": pa.array(statistics.frequencies.keys(), pa.int64()),
            "chunks_with_term": pa.array(statistics.frequencies.values(), pa.int64()),
            "chunks": pa.repeat(pa.scalar(statistics.chunks, pa.int64()), len(statistics.frequencies)),
            "population": pa.repeat(pa.scalar(population, pa.int64()), len(statistics.frequencies)),
            "terms_fingerprint": pa.repeat(pa.scalar(terms_fingerprint), len(statistics.frequencies)),
        },
        schema=TERM_STATISTICS,
    )
    properties = CommitProperties(custom_metadata={"run_id": run_id, "consumed": f"chunks@{chunks.version}"})
    predicate = f"lane = '{lane}'"  # a hexadecimal digest
    table_now = ensure_table(store, TABLE)
    write_deltalake(table_now, rows, mode="overwrite", predicate=predicate, commit_properties=properties)
    return TableSlice.newest(store, TABLE).version


def load(store: Store, version: int, lane: str) -> TermStatistics:
    """Read the statistics of a lane in a version of the table; those of an empty table hold every term for rare."""
    rows = TableSlice(store, TABLE, None, version, lane).read(["term_id", "chunks_with_term", "chunks"])
    chunks = rows["chunks"][0].as_py() if rows.num_rows else 0
    pairs = zip(rows["term_id"].to_pylist(), rows["chunks_with_term"].to_pylist(), strict=True)
    return TermStatistics(chunks, dict(pairs))


def _terms(chunks: TableSlice, population: int) -> Iterator[list[str]]:
    """Give the terms of a sample: chunk ids are digests, so those below a bound are a random share."""
    share = min(1.0, _SAMPLE_CHUNKS / population) if population else 1.0
    bound = "g" if share == 1.0 else f"{int(share * 16**8):08x}"  # "g" is above every hexadecimal digit
    for batch in chunks.batches(["context", "text", "language"], pc.field("chunk_id") < bound, batch_rows=1_024):
        for row in batch.to_pylist():
            yield lexical.index_terms(embedded_text(row["context"], row["text"]), row["language"]).split()
