"""Retrieval on Cranfield through the whole pipeline, beside exact search over the same vectors.

`python -m benchmarks.cranfield --corpus FOLDER` (docs.jsonl, queries.jsonl, qrels.tsv in BEIR layout) indexes the
abstracts in a store of its own with the default configuration, and prints nDCG@10, recall@10, recall@100 and MRR of
dense, BM25 and hybrid search, and of exact search: every vector of the `embeddings` table, times the query's.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console

from rag_assets.cli.output import table
from rag_assets.runner import run_pipeline
from rag_core.config_loader import load_config
from rag_core.evaluation.beir import Qrels, load_qrels, load_queries
from rag_core.evaluation.evaluate import distinct, evaluate
from rag_core.evaluation.query_sets import QuerySet
from rag_core.evaluation.relevance import measure_relevance
from rag_core.index.lite_server import lite_files, stop
from rag_core.retrieval.retriever import Retriever, open_retriever
from rag_core.tables.delta import TableSlice
from rag_core.tables.store import Store

_SOURCE = "cranfield"
_DEPTH = 100


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True, help="folder with docs.jsonl, queries.jsonl, qrels.tsv")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = _measure(arguments.corpus.resolve(), Path(folder))
    if arguments.json:
        print(json.dumps(figures))
        return
    columns = ("mode", *figures["dense"])
    Console().print(table("Cranfield", columns, [(mode, *values.values()) for mode, values in figures.items()]))
    difference = figures["dense"]["ndcg_at_10"] - figures["exact"]["ndcg_at_10"]
    print(f"dense against exact search over the same vectors: {difference:+.4f} nDCG@10")


def _measure(corpus: Path, folder: Path) -> dict[str, dict[str, float]]:
    source = {"name": _SOURCE, "kind": "jsonl", "root": str(corpus / "docs.jsonl")}
    path = folder / "rag.yaml"
    path.write_text(json.dumps({"store": {"root": "./data"}, "sources": [source]}))
    loaded = load_config(path)
    summary = run_pipeline(loaded)
    if summary.failures:
        raise SystemExit("\n".join(failure.message for failure in summary.failures))
    store = Store.of(loaded.config.store)
    qrels = load_qrels(corpus / "qrels.tsv")
    queries = {name: text for name, text in load_queries(corpus / "queries.jsonl").items() if name in qrels}
    try:
        with open_retriever(loaded.config) as retriever:
            return _evaluate(retriever, store, queries, qrels)
    finally:
        stop(lite_files(store))


def _evaluate(retriever: Retriever, store: Store, queries: dict[str, str], qrels: Qrels) -> dict[str, dict[str, float]]:
    asked = QuerySet("labelled", _SOURCE, queries, qrels)
    measured = measure_relevance(retriever.client, retriever.target, [asked])
    figures: dict[str, dict[str, float]] = {one.mode: one.result.means() for one in measured}
    vectors = retriever.embed_queries(list(queries.values()))
    chunks = TableSlice.newest(store, "chunks").read(["chunk_id", "external_id"])
    rows = TableSlice.newest(store, "embeddings").read(["chunk_id", "vector"])
    document_of = dict(zip(chunks["chunk_id"].to_pylist(), chunks["external_id"].to_pylist(), strict=True))
    documents = [document_of[name] for name in rows["chunk_id"].to_pylist()]
    stored = np.array(rows["vector"].to_pylist(), dtype=np.float32)
    exact = {
        name: distinct(documents[row] for row in np.argsort(-scores, kind="stable"))[:_DEPTH]
        for name, scores in zip(queries, vectors @ stored.T, strict=True)
    }
    return {"exact": evaluate(exact, qrels).means(), **figures}


if __name__ == "__main__":
    main()
