"""What is served and what its verdict measured: recall and relevance with their floors, and what blocks publication."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from prometheus_client import CollectorRegistry, Gauge

from rag_core.config import RagConfig
from rag_core.errors import ConfigError
from rag_core.generation import configured
from rag_core.monitoring.alerts import read_book
from rag_core.monitoring.blocking import BLOCKS, blocks
from rag_core.monitoring.group import replace_all
from rag_core.stages.publication import Manifest, latest_manifest
from rag_core.stages.verdict import TABLE, Verdict, newest_verdict
from rag_core.tables.delta import TableSlice
from rag_core.tables.store import Store

SERVED: Final = "served"
CANDIDATE: Final = "candidate"
"""Roles of an index: what queries reach, and another that rag.yaml asks for, where there is one that was judged."""

_SCOPES: Final = {
    "1 % of rows": "filter_1_percent",
    "10 % of rows": "filter_10_percent",
    "one source": "filter_source",
    "one access label": "filter_access_label",
    "one partition": "filter_partition",
}
_OTHER_SCOPE: Final = "filter_other"


class IndexMetrics:
    """The manifest of what is served, and the newest verdicts on it and on what rag.yaml asks for."""

    name = "index"

    def __init__(self, store: Store, config: RagConfig) -> None:
        """Name the store; nothing is read yet."""
        self._store, self._config = store, config
        self._target = ""
        self._kept: dict[str, tuple[int, Verdict | None]] = {}
        self.registry = r = CollectorRegistry()
        self._published = Gauge(
            "rag_published_timestamp_seconds", "When the newest manifest of what is served was written.", ["alias"],
            registry=r,
        )  # fmt: skip
        self._info = Gauge(
            "rag_published_info", "1 for what is served.", ["collection", "model", "index_type"], registry=r
        )
        self._documents = Gauge("rag_published_documents", "Documents of the served index.", ["alias"], registry=r)
        self._chunks = Gauge("rag_published_chunks", "Rows of the served collection.", ["alias"], registry=r)
        role = ["role"]
        self._passed = Gauge("rag_verdict_passed", "1 if the newest verdict on an index passed it.", role, registry=r)
        self._judged = Gauge("rag_verdict_timestamp_seconds", "When that was given.", role, registry=r)
        self._verdict_info = Gauge(
            "rag_verdict_info", "1 for the collection that it is about.", ["role", "collection"], registry=r
        )
        self._unclean = Gauge(
            "rag_verdict_unclean_partitions", "Partitions in which Milvus differed from its ledger.", role, registry=r
        )
        self._recall = Gauge(
            "rag_ann_recall_ratio", "ANN recall@10 against exact search, by scope: overall, under filters, the worst "
            "partition.", ["role", "scope"], registry=r,
        )  # fmt: skip
        self._recall_floor = Gauge(
            "rag_ann_recall_floor_ratio", "What rag.yaml asks of it: overall, filtered.", ["scope"], registry=r
        )
        self._relevance = Gauge(
            "rag_relevance_ndcg_at_10", "Mean nDCG@10 of a query set, from 0 to 1.",
            ["role", "source", "query_set", "mode"], registry=r,
        )  # fmt: skip
        self._relevant_recall = Gauge(
            "rag_relevance_recall_at_10", "Mean recall@10 of a query set, from 0 to 1.",
            ["role", "source", "query_set", "mode"], registry=r,
        )  # fmt: skip
        self._relevance_floor = Gauge(
            "rag_relevance_ndcg_at_10_floor", "What rag.yaml asks of hybrid search; missing where it asks nothing.",
            ["query_set"], registry=r,
        )  # fmt: skip
        self._blocked = Gauge(
            "rag_publication_blocked", "1 for what keeps the index that rag.yaml asks for from being published.",
            ["reason"], registry=r,
        )  # fmt: skip
        evaluation = config.evaluation
        self._recall_floor.labels("overall").set(evaluation.min_ann_recall)
        self._recall_floor.labels("filtered").set(evaluation.min_filtered_recall)
        if evaluation.min_ndcg_at_10 is not None:
            self._relevance_floor.labels("labelled").set(evaluation.min_ndcg_at_10)

    def update(self, now: datetime) -> None:
        """Read manifest and verdicts; those that are known are not read again."""
        manifest = latest_manifest(self._store)
        self._show_manifest(manifest)
        served = manifest.collection if manifest is not None else ""
        target = self._target_collection() or self._newest_judged() or served
        judged = {SERVED: self._verdict(served), CANDIDATE: self._verdict(target) if target != served else None}
        verdicts = {role: verdict for role, verdict in judged.items() if verdict is not None}
        self._show_verdicts(verdicts)
        found = blocks(
            manifest,
            judged[CANDIDATE] if target != served else judged[SERVED],
            target,
            self._config.evaluation,
            is_told="blocked_publication/index" in read_book(self._store).open,
        )
        replace_all(self._blocked, {(reason,): float(reason in found) for reason in BLOCKS})

    def _show_manifest(self, manifest: Manifest | None) -> None:
        shown: dict[Gauge, dict[tuple[str, ...], float]] = {
            gauge: {} for gauge in (self._published, self._info, self._documents, self._chunks)
        }
        if manifest is not None:
            alias = (manifest.alias,)
            shown[self._published] = {alias: manifest.published_at.timestamp()}
            shown[self._info] = {(manifest.collection, manifest.model, manifest.index_type): 1.0}
            shown[self._documents] = {alias: manifest.documents}
            shown[self._chunks] = {alias: manifest.chunks}
        for gauge, values in shown.items():
            replace_all(gauge, values)

    def _show_verdicts(self, verdicts: Mapping[str, Verdict]) -> None:
        each = verdicts.items()
        replace_all(self._passed, {(role,): float(one.passed) for role, one in each})
        replace_all(self._judged, {(role,): one.judged_at.timestamp() for role, one in each})
        replace_all(self._verdict_info, {(role, one.collection): 1.0 for role, one in each})
        unclean = {role: one.measures.get("entropy", {}).get("unclean", []) for role, one in each}
        replace_all(self._unclean, {(role,): float(len(found)) for role, found in unclean.items()})
        replace_all(
            self._recall, {(role, scope): value for role, one in each for scope, value in _recalls(one.measures)}
        )
        relevance = [(role, row) for role, one in each for row in one.measures.get("relevance", [])]
        for gauge, measure in ((self._relevance, "ndcg_at_10"), (self._relevant_recall, "recall_at_10")):
            replace_all(
                gauge,
                {(role, row["source"], row["query_set"], row["mode"]): float(row[measure]) for role, row in relevance},
            )

    def _target_collection(self) -> str:
        """Return the collection that rag.yaml asks for; empty where its model is not on this machine."""
        if not self._target:
            try:
                self._target = configured(self._config).collection  # reads files of the model, so once is enough
            except ConfigError:
                return ""
        return self._target

    def _newest_judged(self) -> str:
        """Return the collection that was judged last."""
        rows = TableSlice.newest(self._store, TABLE).read(["collection", "judged_at"])
        newest = rows.sort_by([("judged_at", "descending")]).slice(0, 1)["collection"].to_pylist()
        return str(newest[0]) if newest else ""

    def _verdict(self, collection: str) -> Verdict | None:
        if not collection:
            return None
        version = TableSlice.newest(self._store, TABLE).version
        known = self._kept.get(collection)
        if known is None or known[0] != version:
            known = self._kept[collection] = (version, newest_verdict(self._store, collection))
        return known[1]


def _recalls(measures: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Read ANN recall by scope; nothing where it was not measured."""
    recall = measures.get("ann", {}).get("recall")
    if not recall:
        return
    yield "overall", float(recall["overall"]["recall"])
    for name, one in recall["by_filter"].items():
        yield _SCOPES.get(name, _OTHER_SCOPE), float(one["recall"])
    if recall["by_partition"]:
        yield "worst_partition", min(float(one["recall"]) for one in recall["by_partition"].values())
