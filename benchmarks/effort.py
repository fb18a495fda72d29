"""What the weights of `rag_core.retrieval.effort` do to relevance: hybrid search weighed by the question, and equally.

`python -m benchmarks.effort --corpus FOLDER` (queries.jsonl, qrels.tsv in BEIR layout) searches what the store of
rag.yaml has published, as the service does: both lists once for each question, then fused with every weight of BM25.
Each rule is measured on the questions that it applies to, for a rule that seldom applies hardly moves the mean of all.
Labelled questions are seldom look-ups, so each is also asked as two of its words, drawn at random, with its judgements.
"""

import argparse
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from rag_assets.cli.output import table
from rag_core.answering.terms import question_terms
from rag_core.config_loader import load_config
from rag_core.evaluation.beir import Qrels, load_qrels, load_queries
from rag_core.evaluation.evaluate import distinct, evaluate
from rag_core.index.bm25 import TermStatistics
from rag_core.index.client import STRONG
from rag_core.retrieval.effort import effort_for
from rag_core.retrieval.ranking import Candidate, Ranker, ask
from rag_core.retrieval.retriever import Retriever, open_retriever
from rag_core.retrieval.search import depth_for

_WEIGHTS = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)
_DEPTH = depth_for(10)
_CUT = 2  # words: a look-up, by the rule
_Lists = tuple[Ranker, Sequence[Sequence[Candidate]]]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True, help="folder with queries.jsonl and qrels.tsv")
    parser.add_argument("--seed", type=int, default=0, help="of the draw of words")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    arguments = parser.parse_args()
    qrels = load_qrels(arguments.corpus / "qrels.tsv")
    queries = {name: text for name, text in load_queries(arguments.corpus / "queries.jsonl").items() if name in qrels}
    rows: list[dict[str, Any]] = []
    with open_retriever(load_config().config) as retriever:
        statistics = retriever.target.statistics
        if statistics is None:
            raise SystemExit("the published index has no term statistics, so no term is known to be rare")
        cut = {name: _cut(text, arguments.seed) for name, text in queries.items()}
        for asked, texts in (("as they are", queries), ("two words", cut)):
            rows += _measure(asked, retriever, statistics, texts, qrels)
    if arguments.json:
        print(json.dumps(rows))
        return
    values = [[f"{value:.4f}" if isinstance(value, float) else value for value in row.values()] for row in rows]
    Console(width=140).print(table("nDCG@10 of hybrid, by rule and weight of BM25", tuple(rows[0]), values))


def _cut(question: str, seed: int) -> str:
    """Return two words of a question that carry meaning, drawn at random: by no statistics, which BM25 would like."""
    words = [word for word in dict.fromkeys(question.split()) if len(question_terms(word)) == 1]
    drawn = set(random.Random(f"{seed} {question}").sample(words, min(_CUT, len(words))))
    return " ".join(word for word in words if word in drawn)


def _measure(
    asked: str, retriever: Retriever, statistics: TermStatistics, texts: Mapping[str, str], qrels: Qrels
) -> list[dict[str, Any]]:
    rankings = _rankings(retriever, texts)
    efforts = {name: effort_for(text, search_params={}, statistics=statistics) for name, text in texts.items()}
    chosen = {name: effort.bm25_weight for name, effort in efforts.items()}
    adapted, ids = _ndcg(rankings, chosen, qrels)
    by_weight = {weight: _ndcg(rankings, dict.fromkeys(texts, weight), qrels)[0] for weight in _WEIGHTS}
    rules = {"all": np.ones(len(ids), bool)}
    for rule in ("short", "named", "rare", "none"):
        rules[rule] = np.array([(efforts[name].reasons or ("none",))[0] == rule for name in ids])
    return [
        {"questions": asked, "rule": rule, "count": int(which.sum()), "adapted": float(adapted[which].mean())}
        | _difference(adapted[which] - by_weight[1.0][which])
        | {f"{weight:g}": float(values[which].mean()) for weight, values in by_weight.items()}
        for rule, which in rules.items()
        if which.any()
    ]


def _difference(values: np.ndarray) -> dict[str, float]:
    """Return the mean of paired differences to equal weights, and its standard error."""
    error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return {"to equal": float(values.mean()), "error": float(error)}


def _ndcg(
    rankings: Mapping[str, _Lists], weights: Mapping[str, float], qrels: Qrels
) -> tuple[np.ndarray, tuple[str, ...]]:
    run = {
        name: distinct(
            one.external_id for one in ranker.combine(lists, _DEPTH, weights=(1.0, weights[name])).candidates
        )
        for name, (ranker, lists) in rankings.items()
    }
    result = evaluate(run, qrels)
    return result.ndcg_at_10, result.query_ids


def _rankings(retriever: Retriever, texts: Mapping[str, str]) -> dict[str, _Lists]:
    target = retriever.target
    found: dict[str, _Lists] = {}
    for (name, text), vector in zip(texts.items(), retriever.embed_queries(list(texts.values())), strict=True):
        ranker = Ranker.of(
            retriever.client,
            target.collection,
            text=text,
            vector=vector,
            model_fingerprint=target.model_fingerprint,
            mode="hybrid",
            filters=None,
            search_params=target.search_params,
            statistics=target.statistics,
            consistency=STRONG,
        )
        lists = [[] if request is None else ask(retriever.client, [request])[0] for request in ranker.requests(_DEPTH)]
        found[name] = (ranker, lists)
    return found


if __name__ == "__main__":
    main()
