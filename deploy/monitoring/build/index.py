"""The dashboard of index and recall: what is served, how good it is, what keeps another from being published."""

from typing import Final

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.monitoring.build.panels import BAD, GOOD, PIPELINE, Limit, Panels, Query, Row, graph, number, page
from rag_core.config import EvaluationConfig

_FLOORS: Final = EvaluationConfig()


def index() -> Dashboard:
    """Make it. Colors follow the default floors; the floors of rag.yaml are drawn from their metrics."""
    return page(
        "rag-index",
        "RAG: index and recall",
        "What is served and how good it is, by its newest verdict; what rag.yaml asks for, and what blocks it.",
        [Row("Now", _now()), Row("Recall", _recall()), Row("Relevance", _relevance()), Row("Index", _index())],
        instances='rag_partitions{job="rag-exporter"}',
        with_sources=False,
    )


def _now() -> Panels:
    return [
        number(
            "ANN recall@10", "Of all that is served: share of the exact nearest neighbours.", "percentunit",
            Query(f'rag_ann_recall_ratio{{{PIPELINE},role="served",scope="overall"}}', "overall"),
            limits=(BAD, Limit(_FLOORS.min_ann_recall, "green")),
        ),
        number(
            "Lowest under a filter", "Filters of 1 %, 10 %, a source, an access label, a partition.", "percentunit",
            Query(f'min(rag_ann_recall_ratio{{{PIPELINE},role="served",scope=~"filter_.+"}})', "lowest"),
            limits=(BAD, Limit(_FLOORS.min_filtered_recall, "green")),
        ),
        number(
            "Verdict", "1: passed. Of what is served, and of a candidate where there is one.", "short",
            Query(f"rag_verdict_passed{{{PIPELINE}}}", "{{role}}"), limits=(BAD, Limit(1, "green")),
        ),
        number(
            "Blocked by", "What keeps what rag.yaml asks for from being published; no data: nothing.", "short",
            Query(f"rag_publication_blocked{{{PIPELINE}}} == 1", "{{reason}}"), shows_name=True,
            limits=(Limit(None, "red"),),
        ),
        number(
            "Published", "Since the newest manifest: it is written anew whenever the tables changed.", "s",
            Query(f"time() - rag_published_timestamp_seconds{{{PIPELINE}}}", "ago"), limits=(Limit(None, "blue"),),
        ),
        number(
            "Served", "Collection, model, kind of index.", "short",
            Query(f"rag_published_info{{{PIPELINE}}}", "{{collection}} {{index_type}}"), shows_name=True,
            limits=(Limit(None, "blue"),),
        ),
    ]  # fmt: skip


def _recall() -> Panels:
    recall = f'rag_ann_recall_ratio{{{PIPELINE},role="%s"}}'
    floors = Query(f"rag_ann_recall_floor_ratio{{{PIPELINE}}}", "floor {{scope}}")
    dashed = ("floor overall", "floor filtered")
    limits = (Limit(_FLOORS.min_filtered_recall, "red"),)
    return [
        graph(
            "ANN recall@10 of what is served", "By scope, with the floors. The worst partition is measured with few "
            "queries and may lie below.", "percentunit", Query(recall % "served", "{{scope}}"), floors, dashed=dashed,
            limits=limits, width=12,
        ),
        graph(
            "ANN recall@10 of a candidate", "Of another index that rag.yaml asks for, before it is published.",
            "percentunit", Query(recall % "candidate", "{{scope}}"), floors, dashed=dashed, limits=limits, width=12,
        ),
    ]  # fmt: skip


def _relevance() -> Panels:
    return [
        graph(
            "nDCG@10", "Mean over a query set, by mode. known_item: generated questions, which ask for a document by a "
            "sentence of it.", "short",
            Query(f"rag_relevance_ndcg_at_10{{{PIPELINE}}}", "{{role}} {{source}} {{query_set}} {{mode}}"),
            Query(f"rag_relevance_ndcg_at_10_floor{{{PIPELINE}}}", "floor"), dashed=("floor",), width=12,
        ).max(1.0),
        graph(
            "Recall@10 of relevant documents", "Share of the relevant documents among the first ten.", "percentunit",
            Query(f"rag_relevance_recall_at_10{{{PIPELINE}}}", "{{role}} {{source}} {{query_set}} {{mode}}"), width=12,
        ),
    ]  # fmt: skip


def _index() -> Panels:
    return [
        graph(
            "Rows", "Of the served collection by its manifest, by its ledger, and as the services have it.", "short",
            Query(f"rag_published_chunks{{{PIPELINE}}}", "published"),
            Query(f"sum(rag_index_rows{{{PIPELINE}}})", "ledger"),
            Query('max by (instance) (rag_index_chunks{job="rag-serving"})', "{{instance}}"),
            Query(f"rag_published_documents{{{PIPELINE}}}", "documents"),
        ),
        graph(
            "Partitions that differ from their ledger", "By the newest verdict. `rag verify --repair` mends them.",
            "short", Query(f"rag_verdict_unclean_partitions{{{PIPELINE}}}", "{{role}}"), limits=(Limit(1, "red"),),
        ),
        graph(
            "Publication blocked", "1 for each thing that keeps the index that rag.yaml asks for from being published.",
            "short", Query(f"rag_publication_blocked{{{PIPELINE}}}", "{{reason}}"), limits=(Limit(1, "red"),),
        ),
        number(
            "Since the verdict", "It is given again when enough of the index changed.", "s",
            Query(f"time() - rag_verdict_timestamp_seconds{{{PIPELINE}}}", "{{role}}"), limits=(Limit(None, "blue"),),
            width=8,
        ),
        number(
            "Services on another collection", "That serve what is not published any more.", "short",
            Query(
                'count(rag_index_info{job="rag-serving"} unless on (collection) rag_published_info) or vector(0)',
                "services",
            ),
            limits=(GOOD, Limit(1, "red")), width=8,
        ),
        number(
            "Since the last snapshot", "Of the tables; no data where backup.to is not set.", "s",
            Query(f"time() - rag_backup_last_snapshot_timestamp_seconds{{{PIPELINE}}}", "ago"),
            limits=(GOOD, Limit(30 * 3600, "red")), width=8,
        ),
    ]  # fmt: skip
