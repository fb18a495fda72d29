"""The work of a packed run without Dagster: the functions of the stages, in their order, with their tests between."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rag_core.config import RagConfig
from rag_core.engine.in_process import InProcessEngine
from rag_core.index.client import connect
from rag_core.quality.gate import gate
from rag_core.stages.chunks import chunks_change
from rag_core.stages.common import StageOutput
from rag_core.stages.documents import documents_change
from rag_core.stages.embeddings import embeddings_change, plan_embeddings
from rag_core.stages.index import IndexTables, index_change
from rag_core.stages.publication import generations
from rag_core.tables.change import commit
from rag_core.tables.delta import TableSlice
from rag_core.tables.store import Store

_RUN_ID = "benchmark"


class WorkAlone:
    """Brings partitions up to date. The vectors must be in the cache: no model is called.

    Attributes:
        seconds: Wall-clock time by stage.
    """

    def __init__(self, store: Store, config: RagConfig) -> None:
        self._store, self._config = store, config
        self._engine = InProcessEngine()
        self.seconds: dict[str, float] = {}

    def run(self, partition_keys: Sequence[str]) -> None:
        """Do all stages for partitions of one source."""
        generation = generations(self._store, self._config).target
        with self._stage("documents"):
            self._commit(documents_change(self._slice("documents", partition_keys), self._config, self._engine))
        with self._stage("chunks"):
            documents, chunks = (self._slice(name, partition_keys) for name in ("documents", "chunks"))
            self._tested(documents)
            self._commit(chunks_change(documents, chunks, generation, self._engine))
        with self._stage("embeddings"):
            chunks, vectors = (self._slice(name, partition_keys) for name in ("chunks", "embeddings"))
            self._tested(chunks.in_lane(generation.chunk_lane))
            plan = plan_embeddings(chunks, vectors, generation, run_id=_RUN_ID)
            if plan.missing:
                raise SystemExit(f"{plan.missing} texts are not in the vector cache")
            self._commit(embeddings_change(plan))
        with self._stage("index_partitions"), connect(self._config.index, self._store) as client:
            client.ensure_collection(
                generation.collection,
                dim=generation.spec.dim,
                model_fingerprint=generation.spec.fingerprint,
                config=generation.config.index,
            )
            tables = [self._slice(name, partition_keys) for name in ("chunks", "embeddings", "index_partitions")]
            self._tested(tables[1].in_lane(generation.embedding_lane))
            self._commit(index_change(IndexTables(*tables), client, generation, run_id=_RUN_ID))

    def _slice(self, table: str, partition_keys: Sequence[str]) -> TableSlice:
        return TableSlice.newest(self._store, table, partition_keys)

    def _tested(self, current: TableSlice) -> None:
        if held := gate(current, self._config, run_id=_RUN_ID).held:
            raise SystemExit(f"{len(held)} partitions are held back: {next(iter(held.values()))}")

    def _commit(self, output: StageOutput) -> None:
        commit(output.change, run_id=_RUN_ID)
        output.after_commit()

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
