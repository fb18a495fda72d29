"""How much there is of each source: documents by status, and what is served of them."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from prometheus_client import CollectorRegistry, Gauge

from rag_core.config import RagConfig
from rag_core.monitoring.group import replace_all
from rag_core.monitoring.row_counts import RowCounts
from rag_core.stages.publication import Manifest, latest_manifest
from rag_core.tables.store import Store

STATUSES: Final = ("ok", "empty", "rejected")
_NO_LANE: Final = "no such lane"


class RowMetrics:
    """How many documents, chunks and rows there are, by source: gauges, from the tables' logs."""

    name = "rows"

    def __init__(self, store: Store, config: RagConfig) -> None:
        """Name the store; nothing is read yet."""
        self._store, self._config = store, config
        self._counts = RowCounts(store)
        self.registry = r = CollectorRegistry()
        source = ["source"]
        self._documents = Gauge(
            "rag_documents", "Documents, by status: ok, empty, rejected.", ["source", "status"], registry=r
        )
        self._rejected = Gauge(
            "rag_documents_rejected_ratio", "Share of documents that are rejected; missing without any.", source,
            registry=r,
        )  # fmt: skip
        self._chunks = Gauge("rag_chunks", "Chunks of the served index.", source, registry=r)
        self._vectors = Gauge("rag_vectors", "Vectors of the served index.", source, registry=r)
        self._rows = Gauge("rag_index_rows", "Rows of the served collection, by its ledger.", source, registry=r)

    def update(self, now: datetime) -> None:
        """Count."""
        names = [source.name for source in self._config.sources]
        by_status = self._counts.by_status()
        replace_all(
            self._documents, {(name, status): by_status.get((name, status), 0) for name in names for status in STATUSES}
        )
        totals = {name: sum(by_status.get((name, status), 0) for status in STATUSES) for name in names}
        shares: dict[tuple[str, ...], float] = {
            (name,): by_status.get((name, "rejected"), 0) / count for name, count in totals.items() if count
        }
        replace_all(self._rejected, shares)
        manifest = latest_manifest(self._store)
        lanes = _lanes(manifest) if manifest is not None else {}
        gauges = {"chunks": self._chunks, "embeddings": self._vectors, "index_partitions": self._rows}
        for table, gauge in gauges.items():
            rows = self._counts.by_source(table, lane=lanes.get(table, _NO_LANE))
            replace_all(gauge, {(name,): rows.get(name, 0) for name in names})


def _lanes(manifest: Manifest) -> Mapping[str, str]:
    """Return the lane of each table that is served."""
    return {
        "chunks": manifest.chunk_lane,
        "embeddings": str(json.loads(manifest.settings)["embedding_lane"]),
        "index_partitions": manifest.collection,
    }
