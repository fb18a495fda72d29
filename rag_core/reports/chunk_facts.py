"""What the chunks of a source are: their lengths in tokens and characters, and texts that occur more than once."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rag_core.tables.delta import TableSlice, in_set

_GROUPS = 10
_TEXT_CHARS = 240


@dataclass(frozen=True)
class RepeatedText:
    """A text that several chunks have: how many, in how many documents, its beginning, one of the documents."""

    count: int
    documents: int
    text: str
    uri: str


@dataclass(frozen=True)
class ChunkFacts:
    """Chunks of a source.

    Attributes:
        token_counts: (n,) tokens of each chunk, context included.
        char_counts: (n,) characters of each chunk's text.
        surplus: Chunks beyond the first of each embedded text.
        groups: Embedded texts that occur more than once.
        largest: Those that occur most.
    """

    token_counts: NDArray[np.int64]
    char_counts: NDArray[np.int64]
    surplus: int
    groups: int
    largest: tuple[RepeatedText, ...]

    @property
    def count(self) -> int:
        """All chunks."""
        return int(self.token_counts.size)


def chunk_facts(chunks: TableSlice) -> ChunkFacts:
    """Read lengths and hashes, and the texts of the few that occur most."""
    tokens, chars = [], []
    for batch in chunks.batches(["token_count", "char_start", "char_end"], batch_rows=65_536):
        tokens.append(batch.column("token_count").to_numpy().astype(np.int64))
        chars.append(pc.subtract(batch.column("char_end"), batch.column("char_start")).to_numpy().astype(np.int64))
    none = [np.zeros(0, np.int64)]
    values = pc.value_counts(chunks.read(["text_hash"])["text_hash"])
    counted = pa.table({"text_hash": values.field("values"), "count": values.field("counts")})
    repeated = counted.filter(pc.greater(counted["count"], 1))
    order = [("count", "descending"), ("text_hash", "ascending")]
    return ChunkFacts(
        token_counts=np.concatenate(tokens or none),
        char_counts=np.concatenate(chars or none),
        surplus=chunks_beyond(repeated),
        groups=repeated.num_rows,
        largest=_texts(chunks, repeated.sort_by(order).slice(0, _GROUPS)),
    )


def chunks_beyond(repeated: pa.Table) -> int:
    """Count what is beyond the first of each group."""
    return int(pc.sum(pc.subtract(repeated["count"], 1)).as_py() or 0)


def _texts(chunks: TableSlice, largest: pa.Table) -> tuple[RepeatedText, ...]:
    """Look up one chunk of each text, and the documents of all."""
    if not largest.num_rows:
        return ()
    rows = chunks.read(["text_hash", "chunk_id", "doc_id"], in_set("text_hash", largest["text_hash"].combine_chunks()))
    grouped = rows.group_by("text_hash").aggregate([("chunk_id", "min"), ("doc_id", "count_distinct")]).to_pylist()
    names = [row["chunk_id_min"] for row in grouped]
    shown = chunks.head(len(names), ["chunk_id", "text", "uri"], in_set("chunk_id", names)).to_pylist()
    by_id = {row["chunk_id"]: row for row in shown}
    by_hash = {row["text_hash"]: (by_id[row["chunk_id_min"]], row["doc_id_count_distinct"]) for row in grouped}
    found = []
    for row in largest.to_pylist():
        chunk, documents = by_hash[row["text_hash"]]
        found.append(RepeatedText(row["count"], documents, chunk["text"][:_TEXT_CHARS], chunk["uri"]))
    return tuple(found)
