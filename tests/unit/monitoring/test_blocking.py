"""What keeps an index from being published, as labels have it."""

from dataclasses import replace
from typing import Any

import pytest

from rag_core.config import EvaluationConfig
from rag_core.monitoring.blocking import BLOCKS, blocks
from rag_core.stages.publication import Manifest, rolled_back_verdict
from rag_core.stages.verdict import Verdict
from tests.unit.monitoring.facts import NOW

EVALUATION = EvaluationConfig(min_ndcg_at_10=0.5)
MANIFEST = Manifest(
    collection="served", alias="rag", published_at=NOW, model="m", model_fingerprint="f", dim=3, metric="COSINE",
    index_type="FLAT", search_params="{}", documents=1, chunks=1, partitions=1, table_versions="{}", settings="{}",
    ann_recall_at_10=1.0, verdict="published",
)  # fmt: skip


def verdict(passed: bool, **measures: Any) -> Verdict:
    return Verdict("v", "target", "served", NOW, "run", passed, () if passed else ("a reason",), {}, measures, {}, 1)


def relevance(value: float) -> list[dict[str, Any]]:
    return [{"query_set": "labelled", "mode": "hybrid", "source": "wiki", "ndcg_at_10": value}]


def recall(overall: float, filtered: float) -> dict[str, Any]:
    by = {"by_filter": {"one source": {"recall": filtered}}, "by_partition": {}}
    return {"recall": {"overall": {"recall": overall}, **by}, "reasons": []}


@pytest.mark.parametrize(
    ("measures", "expected"),
    [
        ({"held": ["chunks/wiki__00"]}, {"blocking_check"}),
        ({"entropy": {"unclean": [{"partition_key": "wiki__00", "counts": {}}]}}, {"anti_entropy"}),
        ({"ann": recall(0.9, 1.0)}, {"ann_recall"}),
        ({"ann": recall(1.0, 0.8)}, {"ann_recall"}),
        ({"ann": {**recall(1.0, 1.0), "reasons": ["in partition wiki__00"]}}, {"ann_recall"}),
        ({"relevance": relevance(0.4)}, {"relevance_floor"}),
        ({"leaks": {"leaked": 2}}, {"leaks"}),
        ({"comparison": {"new": {"leaks": {"leaked": 1}}}}, {"leaks"}),
        ({"ann": recall(1.0, 1.0), "relevance": relevance(0.9), "comparison": {}}, {"comparison"}),
        ({"held": ["a"], "relevance": relevance(0.4)}, {"blocking_check", "relevance_floor"}),
    ],
)
def test_a_refusal_by_what_was_measured(measures: dict[str, Any], expected: set[str]) -> None:
    assert blocks(MANIFEST, verdict(False, **measures), "target", EVALUATION) == expected
    assert expected <= set(BLOCKS)


def test_a_verdict_that_passed_blocks_nothing_whatever_it_measured() -> None:
    assert blocks(MANIFEST, verdict(True, relevance=relevance(0.4)), "target", EVALUATION) == frozenset()


def test_what_was_rolled_back_from_is_blocked_until_something_else_is_asked_for() -> None:
    back = replace(MANIFEST, verdict=rolled_back_verdict("target"))
    assert blocks(back, verdict(True), "target", EVALUATION) == {"rolled_back"}
    assert blocks(back, verdict(True), "another", EVALUATION) == frozenset()


def test_a_run_that_did_not_publish_is_told_of_where_nothing_else_says_why() -> None:
    assert blocks(MANIFEST, verdict(True), "target", EVALUATION, is_told=True) == {"run"}
    assert blocks(None, None, "target", EVALUATION, is_told=True) == {"run"}
    assert blocks(MANIFEST, verdict(False, leaks={"leaked": 1}), "target", EVALUATION, is_told=True) == {"leaks"}
    assert blocks(None, None, "", EVALUATION) == frozenset()
