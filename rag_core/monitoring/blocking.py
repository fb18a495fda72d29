"""What keeps an index from being published, as words that a label can have; the verdict has sentences. Pure."""

from typing import Final

from rag_core.config import EvaluationConfig
from rag_core.stages.publication import Manifest
from rag_core.stages.verdict import Verdict
from rag_core.stages.verdict_checks import verdict_checks

BLOCKS: Final = (
    "blocking_check",
    "anti_entropy",
    "ann_recall",
    "relevance_floor",
    "relevance_regression",
    "leaks",
    "comparison",
    "rolled_back",
    "run",
)
"""Everything that blocks: a declared test, Milvus other than its ledger, recall or relevance below a floor, worse
relevance than before, rows shown to the wrong people, another difference to what is served, a rollback, a run that
failed or did not get to it."""

_OF_CHECKS: Final = {
    "anti_entropy_clean": "anti_entropy",
    "ann_recall": "ann_recall",
    "ann_recall_filtered": "ann_recall",
    "relevance_floor": "relevance_floor",
    "no_relevance_regression": "relevance_regression",
    "no_leaks": "leaks",
}


def blocks(
    manifest: Manifest | None,
    verdict: Verdict | None,
    target: str,
    evaluation: EvaluationConfig,
    *,
    is_told: bool = False,
) -> frozenset[str]:
    """Say what blocks the index that rag.yaml asks for; empty: nothing does.

    Args:
        manifest: Of what is served; None if nothing is.
        verdict: The newest on the target; None if it was never judged, which blocks nothing by itself.
        target: Its collection.
        evaluation: Its floors.
        is_told: Whether the platform's own alert `blocked_publication` is open.
    """
    found: set[str] = set()
    if manifest is not None and target and manifest.rolled_back_from == target:
        found.add("rolled_back")
    if verdict is not None and not verdict.passed:
        if verdict.measures.get("held"):
            found.add("blocking_check")
        if verdict.measures.get("ann", {}).get("reasons"):  # a partition surely below its floor is no check of its own
            found.add("ann_recall")
        found.update(_OF_CHECKS[check.name] for check in verdict_checks(verdict, evaluation) if not check.passed)
        if not found - {"rolled_back"}:
            found.add("comparison")
    if is_told and not found:
        found.add("run")
    return frozenset(found)
