"""Measures against values worked out by hand, and against trec_eval itself where it is installed."""

import random
from datetime import UTC, datetime
from math import log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_core.evaluation import metrics
from rag_core.evaluation.evaluate import distinct, evaluate
from rag_core.schemas import RETRIEVAL_EVAL


def test_by_hand() -> None:
    qrels = {"q": {"a": 3, "b": 2, "c": 1, "no": 0}}
    result = evaluate({"q": ["no", "b", "x", "a"]}, qrels)
    dcg = 2 / log2(3) + 3 / log2(5)
    ideal = 3 / log2(2) + 2 / log2(3) + 1 / log2(4)
    assert result.ndcg_at_10[0] == pytest.approx(dcg / ideal)
    assert result.recall_at_10[0] == pytest.approx(2 / 3)
    assert result.mrr[0] == pytest.approx(1 / 2)


def test_only_the_first_k_count() -> None:
    result = evaluate({"q": [*(f"x{n}" for n in range(10)), "a"]}, {"q": {"a": 1}})
    assert result.means() == {"ndcg_at_10": 0, "recall_at_10": 0, "recall_at_100": 1, "mrr": pytest.approx(1 / 11)}


def test_the_ideal_ranking_is_cut_at_k_too() -> None:
    judged = {f"d{n}": 1 for n in range(20)}
    result = evaluate({"q": list(judged)[:10]}, {"q": judged})
    assert result.ndcg_at_10[0] == pytest.approx(1.0)
    assert result.recall_at_10[0] == pytest.approx(0.5)


def test_order_given_decides_ties() -> None:
    qrels = {"q": {"a": 1}}
    assert evaluate({"q": ["a", "b"]}, qrels).mrr[0] == 1
    assert evaluate({"q": ["b", "a"]}, qrels).mrr[0] == 0.5


def test_queries_without_relevant_documents_are_left_out_and_counted() -> None:
    result = evaluate({"q1": ["a"], "q2": ["a"], "unjudged": ["a"]}, {"q1": {"a": 1}, "q2": {"a": 0, "b": -1}})
    assert result.query_ids == ("q1",)
    assert result.without_relevant == 2
    assert result.means()["mrr"] == 1


def test_a_query_without_a_ranking_scores_zero() -> None:
    result = evaluate({"q1": ["a"], "q2": []}, {"q1": {"a": 1}, "q2": {"a": 1}, "q3": {"a": 1}})
    assert result.without_ranking == 2
    assert result.means()["ndcg_at_10"] == pytest.approx(1 / 3)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="'a' occurs twice"):
        evaluate({"q": ["a", "b", "a"]}, {"q": {"a": 1}})
    with pytest.raises(ValueError, match="no query has a relevant document"):
        evaluate({"q": ["a"]}, {"q": {"a": 0}})


def test_distinct_keeps_the_best_place() -> None:
    assert distinct(["b", "a", "b", "c", "a"]) == ["b", "a", "c"]


def test_rows_have_the_stored_schema() -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    result = evaluate({"q1": ["a"], "q2": ["x", "b"]}, {"q1": {"a": 1}, "q2": {"b": 4}})
    rows = result.to_rows(query_set="labelled", source="handbook", mode="hybrid", collection="c", evaluated_at=now)
    assert rows.schema == RETRIEVAL_EVAL
    assert rows["query_id"].to_pylist() == ["q1", "q2"]
    assert set(rows["query_set"].to_pylist()) == {"labelled"}
    assert rows["mrr"].to_pylist() == [1.0, 0.5]
    assert set(rows["evaluated_at"].to_pylist()) == {now}


_scores = st.dictionaries(st.integers(0, 30).map(str), st.integers(-1, 4), min_size=1)


@given(judged=_scores, ranking=st.permutations([str(n) for n in range(31)]), depth=st.integers(0, 31))
def test_every_measure_lies_between_0_and_1_and_the_ideal_order_gives_1(
    judged: dict[str, int], ranking: list[str], depth: int
) -> None:
    ideal = metrics.ideal_gains(judged)
    if not ideal.size:
        return
    result = evaluate({"q": ranking[:depth]}, {"q": judged})
    assert all(0 <= value <= 1 + 1e-12 for value in result.means().values())
    best = sorted(judged, key=lambda document: -judged[document])
    assert evaluate({"q": best}, {"q": judged}).ndcg_at_10[0] == pytest.approx(1)


def test_agrees_with_trec_eval() -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval", reason="pip install pytrec_eval-terrier for the cross-check")
    draw = random.Random(7)
    documents = [f"d{n}" for n in range(300)]
    qrels = {f"q{n}": {d: draw.randint(0, 4) for d in draw.sample(documents, 40)} for n in range(50)}
    run = {query: draw.sample(documents, draw.choice([3, 10, 100, 200])) for query in qrels}
    ours = evaluate(run, qrels)

    scored = {query: {d: 1000.0 - rank for rank, d in enumerate(ranking)} for query, ranking in run.items()}
    names = {
        "ndcg_at_10": "ndcg_cut_10",
        "recall_at_10": "recall_10",
        "recall_at_100": "recall_100",
        "mrr": "recip_rank",
    }
    measures = {"ndcg_cut.10", "recall.10,100", "recip_rank"}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(scored)
    for column, name in names.items():
        expected = [theirs[query][name] for query in ours.query_ids]
        np.testing.assert_allclose(getattr(ours, column), expected, atol=1e-12, err_msg=column)
