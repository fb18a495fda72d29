"""The ledger of a collection beside the tables its rows come from: what comparing and mending read."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from rag_core.config import IndexConfig
from rag_core.index.journal import SyncJournal
from rag_core.tables.delta import TableSlice
from rag_core.tables.store import Store

if TYPE_CHECKING:
    from rag_core.generation import Generation

IDENTITY: Final = ("chunk_id", "row_hash", "text_hash", "model_fingerprint")
"""What ledger and collection must agree on, row by row; columns of the one, fields of the other."""


@dataclass(frozen=True)
class LedgerTables:
    """Where the rows of a collection are in the tables.

    Attributes:
        collection: Its name, the lane of the ledger.
        model_fingerprint: Of its vectors.
        dim: Of its vectors.
        index: Metric, index type and parameters of the collection.
        ledger: `index_partitions` in the collection's lane.
        chunks: `chunks` in the generation's lane.
        embeddings: `embeddings` in the generation's lane.
    """

    collection: str
    model_fingerprint: str
    dim: int
    index: IndexConfig
    ledger: TableSlice
    chunks: TableSlice
    embeddings: TableSlice

    @classmethod
    def open(
        cls,
        store: Store,
        collection: str,
        *,
        chunk_lane: str,
        embedding_lane: str,
        model_fingerprint: str,
        dim: int,
        index: IndexConfig,
    ) -> "LedgerTables":
        """Open the newest versions; no model is needed."""
        return cls(
            collection=collection,
            model_fingerprint=model_fingerprint,
            dim=dim,
            index=index,
            ledger=TableSlice.newest(store, "index_partitions", lane=collection),
            chunks=TableSlice.newest(store, "chunks", lane=chunk_lane),
            embeddings=TableSlice.newest(store, "embeddings", lane=embedding_lane),
        )

    @classmethod
    def of_generation(cls, store: Store, generation: "Generation") -> "LedgerTables":
        """Open the newest versions of a generation's lanes."""
        return cls.open(
            store,
            generation.collection,
            chunk_lane=generation.chunk_lane,
            embedding_lane=generation.embedding_lane,
            model_fingerprint=generation.spec.fingerprint,
            dim=generation.spec.dim,
            index=generation.config.index,
        )

    def newest(self) -> "LedgerTables":
        """Open the tables again, at their newest versions."""

        def again(one: TableSlice) -> TableSlice:
            return TableSlice.newest(one.store, one.table, one.partition_keys, lane=one.lane)

        return replace(self, ledger=again(self.ledger), chunks=again(self.chunks), embeddings=again(self.embeddings))

    def of(self, partition_key: str) -> "LedgerTables":
        """Narrow the tables to a partition."""
        return replace(
            self,
            ledger=self.ledger.of(partition_key),
            chunks=self.chunks.of(partition_key),
            embeddings=self.embeddings.of(partition_key),
        )

    @property
    def journal(self) -> SyncJournal:
        """The journal of the collection."""
        return SyncJournal(self.ledger.store, self.collection)

    def identities(self, partition_key: str) -> pa.Table:
        """Read what the collection must hold of a partition: `IDENTITY`, one row a chunk."""
        return self.ledger.of(partition_key).read(list(IDENTITY))
