"""A small store with everything that reports tell of: two sources, tests, deletions, verdicts, publications."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake

from rag_core import ids, schemas
from rag_core.config import EvaluationConfig, FilesSource, RagConfig, StoreConfig
from rag_core.evaluation.ann_result import AnnRecall, Measured
from rag_core.evaluation.compare import Agreement, Comparison, Latency, Side, SourceCounts
from rag_core.evaluation.leaks import Leaks
from rag_core.evaluation.regression import regression
from rag_core.evaluation.sweep import Sweep, SweepPoint
from rag_core.stages.verdict import Verdict
from rag_core.tables.delta import SCHEMAS, ensure_table
from rag_core.tables.store import Store

NOW = datetime.now(UTC).replace(microsecond=0)
OLD, NEW = "rag_0ld0ld0ld0ld", "rag_4e34e34e34e3"
LONG_AGO = NOW - timedelta(days=900)
MODES = ("dense", "bm25", "hybrid")
SCRIPT = "<script>alert(1)</script>"
"""Text of a document that must not become a part of a page."""


def config_of(root: Path, buckets: int = 2) -> RagConfig:
    """Return a configuration with the sources `handbook` and `wiki`."""
    sources = tuple(FilesSource(name=name, kind="files", root=root, buckets=buckets) for name in ("handbook", "wiki"))
    return RagConfig(store=StoreConfig(root=str(root / "data")), sources=sources)


def append(store: Store, table: str, rows: list[dict[str, Any]]) -> None:
    """Append rows; columns that are left out get a value of their type, or null where that is allowed."""
    filled = [{**{field.name: _default(field) for field in SCHEMAS[table]}, **row} for row in rows]
    write_deltalake(ensure_table(store, table), pa.Table.from_pylist(filled, schema=SCHEMAS[table]), mode="append")


def _default(field: pa.Field) -> Any:
    if field.nullable:
        return None
    if pa.types.is_string(field.type):
        return ""
    if pa.types.is_boolean(field.type):
        return False
    if pa.types.is_timestamp(field.type):
        return NOW
    return [] if pa.types.is_list(field.type) else 0


def document(source: str, number: int, **values: Any) -> dict[str, Any]:
    """Return a row of `documents` with text of its own, changed so many days ago."""
    uri = f"file:///srv/{source}/{number}.md"
    return {
        "partition_key": f"{source}__{number % 2:02d}", "doc_id": ids.doc_id(source, str(number)), "source": source,
        "uri": uri, "mime": "text/markdown", "language": "en", "modified_at": NOW - timedelta(days=number),
        "size_bytes": 100, "content_hash": f"bytes {source} {number}", "text_hash": f"text {source} {number}",
        "status": "ok", "ingested_at": NOW - timedelta(minutes=30), **values,
    }  # fmt: skip


def chunk(doc: Mapping[str, Any], ordinal: int, **values: Any) -> dict[str, Any]:
    """Return a row of `chunks` of the new lane."""
    name = f"{doc['doc_id']} {ordinal}"
    return {
        "lane": "new", "partition_key": doc["partition_key"], "chunk_id": name, "doc_id": doc["doc_id"],
        "source": doc["source"], "ordinal": ordinal, "text": f"text of {name}", "char_end": 100 + ordinal,
        "token_count": 20 + ordinal, "text_hash": name, "row_hash": name, "uri": doc["uri"], **values,
    }  # fmt: skip


def ledger_row(row: Mapping[str, Any], **values: Any) -> dict[str, Any]:
    """Return the row of `index_partitions` of a chunk, indexed ten minutes after its document's row was written."""
    taken = {name: row[name] for name in ("partition_key", "chunk_id", "doc_id", "text_hash", "row_hash")}
    return {**taken, "collection": NEW, "indexed_at": NOW - timedelta(minutes=20), **values}


def vector_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of `embeddings` of a chunk."""
    taken = {name: row[name] for name in ("partition_key", "chunk_id", "doc_id", "text_hash")}
    return {**taken, "lane": "new", "vector": [1.0]}


def manifest_row(collection: str, published_at: datetime, **values: Any) -> dict[str, Any]:
    """Return a row of `published_index`."""
    settings = {
        "chunk_lane": "new", "embedding_lane": "new", "chunking": {"max_tokens": 254}, "embedding": {"model": "mini"},
        "index": {"index_type": "HNSW"},
    }  # fmt: skip
    return {
        "collection": collection, "alias": "rag", "published_at": published_at, "model": "mini", "dim": 384,
        "model_fingerprint": "m", "metric": "COSINE", "index_type": "HNSW", "search_params": '{"ef": 64}',
        "documents": 4, "chunks": 9, "partitions": 4, "table_versions": '{"documents": 1}',
        "settings": json.dumps(settings), "ann_recall_at_10": 0.98, "verdict": "published", **values,
    }  # fmt: skip


def result_row(key: str, test: str, outcome: str, **values: Any) -> dict[str, Any]:
    """Return a row of `quality_results` about `chunks`."""
    failing = 0 if outcome == "pass" else 2
    examples = json.dumps([["chunk 7", SCRIPT]] if failing else [])
    return {
        "result_id": ids.digest(key, test, outcome), "run_id": "run", "evaluated_at": NOW, "table": "chunks",
        "lane": "new", "partition_key": key, "test": test, "kind": test.partition("__")[0], "outcome": outcome,
        "severity": "warn" if outcome == "warn" else "error", "blocking": True, "value": float(failing),
        "threshold": "no value twice", "rows": 9, "failing_rows": failing, "examples": examples, "profile": "{}",
        "description": f"{test} holds.", **values,
    }  # fmt: skip


def eval_rows(collection: str, at: datetime, ndcg: float, queries: int = 30) -> list[dict[str, Any]]:
    """Return rows of `retrieval_eval`: two query sets in three modes, around a mean of nDCG@10."""
    return [
        {
            "query_id": f"q{number}", "query_set": query_set, "source": source, "mode": mode, "collection": collection,
            "evaluated_at": at, "ndcg_at_10": min(1.0, max(0.0, ndcg + 0.1 * ((number % 5) - 2))), "recall_at_10": ndcg,
            "recall_at_100": min(1.0, ndcg + 0.1), "mrr": ndcg,
        }
        for query_set, source in (("labelled", "handbook"), ("known_item", "*"))
        for mode in MODES
        for number in range(queries)
    ]  # fmt: skip


def recall_of(recall: float, *, queries: int = 200) -> Measured:
    """Return a measurement of ANN recall."""
    return Measured(
        recall, max(0.0, recall - 0.03), min(1.0, recall + 0.02), queries, 9_000, 3, 0, 4 + 20 * recall, 40.0
    )


def sweep_of(overall: float, filtered: float) -> Sweep:
    """Return a sweep of `ef` with four points that ends at these recalls."""
    filters = {"1 % of rows": recall_of(filtered), "one source": recall_of(overall)}
    partitions = {f"handbook__{number:02d}": recall_of(overall - number / 50, queries=40) for number in range(2)}
    recall = AnnRecall(10, {"ef": 64}, recall_of(overall), partitions, filters, {}, 800, 0)
    points = tuple(
        SweepPoint(ef, recall_of(overall - 0.2 / place), recall_of(filtered - 0.3 / place))
        for place, ef in enumerate((16, 32, 64, 128), start=1)
    )
    reasons = recall.missed(EvaluationConfig())
    return Sweep("ef", points, "1 % of rows", {"ef": 64}, recall, reasons, 2_000)


def verdict_of(config: RagConfig, *, passed: bool, ndcg: tuple[float, float] = (0.7, 0.4), **values: Any) -> Verdict:
    """Return a verdict on the new collection against the old one; refused, it has reasons of three kinds."""
    schema = schemas.RETRIEVAL_EVAL
    old, new = (
        pa.Table.from_pylist(eval_rows(name, NOW, mean), schema=schema)
        for name, mean in zip((OLD, NEW), ndcg, strict=True)
    )
    means = [
        {"query_set": query_set, "source": source, "mode": mode, "collection": NEW, "ndcg_at_10": ndcg[1],
         "recall_at_10": ndcg[1], "recall_at_100": ndcg[1] + 0.1, "mrr": ndcg[1], "queries": 30, "without_relevant": 0,
         "without_ranking": 0, "seconds": 1.0}
        for query_set, source in (("labelled", "handbook"), ("known_item", "*"))
        for mode in MODES
    ]  # fmt: skip
    findings = regression(old, new, config.evaluation)
    leaks = Leaks(
        3, 120, 0 if passed else 2, [] if passed else ["under label 0a1b document 7 was found, which is gone"]
    )
    counts = {"handbook": SourceCounts(3, 6), "wiki": SourceCounts(1, 3)}
    sides = [
        Side(name, {mode: Latency(8.0, 20.0) for mode in MODES}, counts, one)
        for name, one in ((OLD, Leaks(3, 120, 0)), (NEW, leaks))
    ]
    both = Comparison(60, {mode: Agreement(0.62, 0.58) for mode in MODES}, *sides)
    reasons = (
        "ANN recall@10 under the filter '1 % of rows' is 0.700 (0.670 to 0.720, 200 queries), below the floor of 0.9.",
        *(one.sentence for one in findings if one.refused),
        "2 rows were shown to principals who may not read them",
    )
    unclean = [
        {"partition_key": "wiki__01", "ledger_rows": 9, "index_rows": 8, "counts": {"missing": 1, "orphaned": 0}}
    ]
    measures = {
        "ann": sweep_of(0.97, 0.95 if passed else 0.7).to_dict(),
        "relevance": means,
        "regression": [one.to_dict() for one in findings],
        "comparison": both.to_dict(),
        "entropy": {"partitions": 4, "unclean": [] if passed else unclean},
        "settings": "s",
    }
    fields: dict[str, Any] = {
        "verdict_id": ids.digest("verdict", str(passed)), "collection": NEW, "against": OLD, "judged_at": NOW,
        "run_id": "run", "passed": passed, "reasons": () if passed else reasons, "search_params": {"ef": 64},
        "measures": measures, "table_versions": {"documents": 1, "chunks": 1}, "chunks": 9,
    }  # fmt: skip
    return Verdict(**{**fields, **values})


def fill(store: Store) -> None:
    """Write documents of both sources with their chunks, vectors and ledger, test results, deletions, manifests.

    `handbook` has three documents with text, two of them the same, one rejected, one empty, and a chunk that waits.
    """
    docs = [
        document("handbook", 1),
        document("handbook", 2, content_hash="same", text_hash="same"),
        document("handbook", 3, content_hash="same", text_hash="same", language=None, modified_at=LONG_AGO),
        document("handbook", 4, status="rejected", reason=f"It is damaged. {SCRIPT}", mime="application/pdf"),
        document("handbook", 5, status="empty", reason="It is a scan.", mime="application/pdf"),
        document("wiki", 1),
    ]  # fmt: skip
    with_text = [one for one in docs if one["status"] == "ok"]
    chunks = [chunk(one, ordinal) for one in with_text for ordinal in range(2)]
    chunks += [
        chunk(docs[0], 2, text=f"Confidential {SCRIPT}", text_hash="notice"),
        chunk(docs[1], 2, text_hash="notice"),
    ]
    append(store, "documents", docs)
    append(store, "chunks", [*chunks, chunk(docs[0], 9, lane="old", token_count=250)])
    append(store, "embeddings", [vector_row(one) for one in chunks])
    append(store, "index_partitions", [ledger_row(one) for one in chunks[1:]])
    append(store, "quality_results", [
        result_row("handbook__00", "unique__chunk_id", "error", evaluated_at=NOW - timedelta(hours=1)),
        result_row("handbook__00", "unique__chunk_id", "pass"),
        result_row("handbook__01", "unique__chunk_id", "error"),
        result_row("handbook__01", "boilerplate__text", "warn", blocking=False),
        result_row("handbook__01", "not_null__text", "error", lane="old"),
        result_row("wiki__00", "unique__chunk_id", "pass"),
    ])  # fmt: skip
    append(store, "deletions", [
        {"doc_id": "gone", "partition_key": "handbook__00", "uri": "file:///srv/handbook/gone.md", "collection": NEW,
         "rows_removed": 3, "unfindable_by_id": True, "unfindable_by_text": True, "removed_at": NOW},
    ])  # fmt: skip
    append(store, "published_index", [
        manifest_row(OLD, NOW - timedelta(days=9)),
        manifest_row(NEW, NOW - timedelta(days=2)),
        manifest_row(OLD, NOW - timedelta(days=1), verdict=f"rolled back from {NEW}"),
        manifest_row(NEW, NOW),
    ])  # fmt: skip
    append(store, "retrieval_eval", eval_rows(OLD, NOW, 0.7) + eval_rows(NEW, NOW, 0.4))
