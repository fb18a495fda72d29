"""What the rows of one generation lack, by partition: each table's key columns are read once.

The same comparisons as the stages make, over all partitions at once and without the rows' content.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from rag_core.embedding.cache import VectorCache
from rag_core.engine.chunkers import chunker_fingerprints
from rag_core.generation import Generation
from rag_core.stages.common import anti_join, count_by_partition
from rag_core.stages.publication import Generations, not_blank
from rag_core.stages.work import IndexWork
from rag_core.tables.delta import TableSlice
from rag_core.tables.store import Store

_KEYS = ["partition_key", "doc_id"]
_CHUNK_KEY = ["partition_key", "chunk_id"]
_SPAN = [*_CHUNK_KEY, "text_hash"]
_CHUNK = [*_KEYS, "chunk_id", "row_hash", "text_hash", "doc_hash", "chunker_fingerprint"]
_VECTOR = [*_KEYS, "chunk_id", "text_hash", "model_fingerprint"]
_LEDGER = [*_KEYS, "chunk_id", "row_hash", "model_fingerprint"]
_TO_DO = ("uncut", "dropped", "waiting", "useless", "unwritten", "unwanted")


@dataclass(frozen=True)
class GenerationRows:
    """Rows of one generation that something is to be done about; columns `partition_key` and `doc_id`, and as named.

    Attributes:
        generation: Whose.
        documents: Documents that are to have chunks (doc_id, doc_hash).
        kept: Chunks that stay (chunk_id, row_hash, text_hash).
        uncut: Documents to be cut.
        dropped: Chunks that go away.
        waiting: Chunks that need a row of `embeddings` (text_hash).
        useless: Rows of `embeddings` that go away.
        unwritten: Rows to write.
        unwanted: Rows to delete.
        missing: Hashes of the texts that the model has no vector for.
        chunks_per_document: What a document that is not cut yet is expected to give.
    """

    generation: Generation
    documents: pa.Table
    kept: pa.Table
    uncut: pa.Table
    dropped: pa.Table
    waiting: pa.Table
    useless: pa.Table
    unwritten: pa.Table
    unwanted: pa.Table
    missing: tuple[str, ...]
    chunks_per_document: float

    def work(self, to_parse: Mapping[str, int]) -> dict[str, IndexWork]:
        """Count by partition.

        Args:
            to_parse: Objects that are still to be parsed, by partition; each is taken for one document to cut.
        """
        is_missing = pc.is_in(self.waiting["text_hash"], pa.array(self.missing, pa.string()))
        counted = {
            "documents_to_cut": count_by_partition(self.uncut),
            "documents_to_drop": _documents(anti_join(self.dropped, self.kept, _KEYS)),
            "chunks_waiting": count_by_partition(self.waiting),
            "texts_to_embed": _first_of_each(self.waiting.filter(is_missing)),
            "texts_reused": _first_of_each(self.waiting.filter(pc.invert(is_missing))),
            "vectors_to_drop": count_by_partition(self.useless),
            "rows_to_write": count_by_partition(self.unwritten),
            "rows_to_delete": count_by_partition(self.unwanted),
            "documents": _documents(
                self.uncut, self.dropped, self.waiting, self.useless, self.unwritten, self.unwanted
            ),
        }
        found: dict[str, IndexWork] = {}
        for key in {key for counts in (*counted.values(), to_parse) for key in counts}:
            figures = {name: counts.get(key, 0) for name, counts in counted.items()}
            figures["documents_to_cut"] += to_parse.get(key, 0)
            expected = figures["documents_to_cut"] * self.chunks_per_document
            found[key] = IndexWork(**figures, expected_chunks=expected)
        return found


def read_generation(
    store: Store,
    known: Generations,
    generation: Generation,
    keys: Sequence[str],
    *,
    outdated: Iterable[str] = (),
    stage: str | None = None,
) -> GenerationRows:
    """Find what is to be done for a generation.

    Args:
        store: Holds the tables.
        known: Both generations.
        generation: One of them.
        keys: Partitions to look at.
        outdated: Ids of objects whose documents will change or go: what is made of them goes as well.
        stage: Only what `chunks`, `embeddings` or `index_partitions` would do on the tables as they are; None means
            what a whole run would do.
    """
    read = _Reader(store, generation, keys)
    documents = read.documents(outdated)
    chunks, vectors, ledger = read.table("chunks", _CHUNK), read.table("embeddings", _VECTOR), read.ledger()
    model = pc.field("model_fingerprint") == generation.spec.fingerprint
    ours = vectors.filter(model)
    kept = chunks
    if stage == "index_partitions":  # a chunk whose vector is not there yet waits
        kept = chunks.join(ours.select(_SPAN), keys=_SPAN, join_type="left semi")
    elif stage != "embeddings":
        kept = _cut_as_now(documents, chunks, generation)
    waiting = anti_join(kept, ours, _SPAN)
    rows = {
        "uncut": (read.not_blank(anti_join(documents, kept, _KEYS)), "chunks"),
        "dropped": (anti_join(chunks, kept, _CHUNK_KEY), "chunks"),
        "waiting": (waiting, "embeddings"),
        "useless": (_useless(vectors, ours, kept), "embeddings"),
        "unwritten": (anti_join(kept, ledger.filter(model), [*_CHUNK_KEY, "row_hash"]), "index_partitions"),
        "unwanted": (anti_join(ledger, kept, _CHUNK_KEY), "index_partitions"),
    }
    return GenerationRows(
        generation=generation,
        documents=documents,
        kept=kept,
        missing=read.missing(waiting),
        chunks_per_document=_chunks_per_document(store, known, generation),
        **{name: found if stage in (None, of) else found.slice(0, 0) for name, (found, of) in rows.items()},
    )


@dataclass(frozen=True)
class _Reader:
    """Reads key columns of some partitions, of the lanes of one generation."""

    store: Store
    generation: Generation
    keys: Sequence[str]

    def documents(self, outdated: Iterable[str]) -> pa.Table:
        """Return the documents that are to have chunks, without those of some objects."""
        where = pc.field("status") == "ok"
        columns = [*_KEYS, "doc_hash", "source", "object_id"]
        rows = TableSlice.newest(self.store, "documents", self.keys).read(columns, where)
        return rows.filter(pc.invert(pc.is_in(rows["object_id"], pa.array(sorted(outdated), pa.string()))))

    def table(self, name: str, columns: Sequence[str]) -> pa.Table:
        """Return rows of the generation's lane."""
        lanes = {"chunks": self.generation.chunk_lane, "embeddings": self.generation.embedding_lane}
        return TableSlice.newest(self.store, name, self.keys, lane=lanes[name]).read(columns)

    def ledger(self) -> pa.Table:
        """Return the ledger of its collection."""
        lane = self.generation.collection
        return TableSlice.newest(self.store, "index_partitions", self.keys, lane=lane).read(_LEDGER)

    def not_blank(self, uncut: pa.Table) -> pa.Table:
        """Leave out documents that have nothing to cut."""
        return not_blank(TableSlice.newest(self.store, "documents", self.keys), uncut)

    def missing(self, waiting: pa.Table) -> tuple[str, ...]:
        """Return the hashes of texts that the model has no vector for."""
        hashes = pc.unique(waiting["text_hash"]).to_pylist()
        return tuple(VectorCache(self.store).missing(self.generation.spec.fingerprint, hashes))


def _cut_as_now(documents: pa.Table, chunks: pa.Table, generation: Generation) -> pa.Table:
    """Return the chunks that a run would keep: cut from the document as it is, by the chunker of the settings."""
    keys = [*_KEYS, "doc_hash"]
    if generation.follows_settings:
        fingerprints = chunker_fingerprints(generation.config)
        wanted = [fingerprints.get(source, "") for source in documents["source"].to_pylist()]
        documents = documents.append_column("chunker_fingerprint", pa.array(wanted, pa.string()))
        keys.append("chunker_fingerprint")
    return chunks.join(documents.select(keys), keys=keys, join_type="left semi")


def _useless(vectors: pa.Table, ours: pa.Table, kept: pa.Table) -> pa.Table:
    """Return the rows of `embeddings` that go away: of another model, or of a chunk that is gone or changed."""
    others = anti_join(vectors, ours, [*_CHUNK_KEY, "model_fingerprint"])
    return pa.concat_tables([others, anti_join(ours, kept, _SPAN)])


def _chunks_per_document(store: Store, known: Generations, generation: Generation) -> float:
    """Estimate from the lane itself, else from the served one, by the size of its chunks."""
    for other in (generation, known.served):
        if other is None:
            continue
        chunks = TableSlice.newest(store, "chunks", lane=other.chunk_lane).read(["doc_id"])
        if chunks.num_rows:
            size = other.config.chunking.max_tokens / generation.config.chunking.max_tokens
            documents: int = pc.count_distinct(chunks["doc_id"]).as_py()
            return float(chunks.num_rows / documents * size)
    return 1.0


def _documents(*tables: pa.Table) -> dict[str, int]:
    """Count the documents of rows by partition."""
    rows = pa.concat_tables([table.select(_KEYS) for table in tables])
    return count_by_partition(rows.group_by(_KEYS).aggregate([]))


def _first_of_each(waiting: pa.Table) -> dict[str, int]:
    """Count texts by partition, one that is in several in the first of them: so the counts add up to those of all."""
    firsts = waiting.group_by("text_hash").aggregate([("partition_key", "min")])
    return count_by_partition(firsts.select(["partition_key_min"]).rename_columns(["partition_key"]))
