"""A verdict read as checks: each thing that was measured, its value, and what was asked of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rag_core.config import EvaluationConfig
from rag_core.stages.verdict import Verdict

CHECKS: Final[Mapping[str, str]] = {
    "anti_entropy_clean": "Milvus holds what the ledger says: no row missing, orphaned, duplicated or stale.",
    "ann_recall": "Share of the exact nearest neighbours that the index finds among its first 10.",
    "ann_recall_filtered": "The same under the hardest filter: 1 %, 10 %, one source, one access label, one partition.",
    "relevance_floor": "nDCG@10 of hybrid search on labelled questions is no lower than the configuration asks.",
    "no_relevance_regression": "No mode answers the same questions surely worse than the index served before.",
    "no_leaks": "A search under an access label shows no row that its holder may not read.",
}
"""Name of each check, and what it says."""


@dataclass(frozen=True)
class VerdictCheck:
    """One check of a verdict.

    Attributes:
        name: One of `CHECKS`.
        passed: Whether the verdict's measurement satisfies it; true where there was nothing to measure.
        value: What was measured; None where there was nothing.
        threshold: What was asked, in words.
        details: Rows to show.
    """

    name: str
    passed: bool
    value: float | None
    threshold: str
    details: Sequence[Mapping[str, Any]] = ()


def verdict_checks(verdict: Verdict, evaluation: EvaluationConfig) -> Iterator[VerdictCheck]:
    """Read a verdict; checks come in the order of `CHECKS`."""
    measures = verdict.measures
    unclean = measures.get("entropy", {}).get("unclean", [])
    shown = [{"partition": one["partition_key"], **one["counts"]} for one in unclean]
    yield VerdictCheck("anti_entropy_clean", not unclean, float(len(unclean)), "0 partitions differ", shown)
    yield from _ann(measures.get("ann", {}).get("recall"), evaluation)
    yield _floor(measures.get("relevance", []), evaluation.min_ndcg_at_10)
    yield _regression(measures.get("regression", []), evaluation)
    leaks = measures.get("leaks") or measures.get("comparison", {}).get("new", {}).get("leaks", {})
    leaked = leaks.get("leaked")
    examples = [{"leak": one} for one in leaks.get("examples", [])]
    value = None if leaked is None else float(leaked)
    yield VerdictCheck("no_leaks", not leaked, value, "0 rows", examples)


def _ann(recall: Mapping[str, Any] | None, evaluation: EvaluationConfig) -> Iterator[VerdictCheck]:
    overall = recall["overall"]["recall"] if recall else None
    filtered = {name: one["recall"] for name, one in recall["by_filter"].items()} if recall else {}
    lowest = min(filtered.values(), default=None)
    floors = (evaluation.min_ann_recall, evaluation.min_filtered_recall)
    rows = [{"filter": name, "recall@10": f"{value:.3f}"} for name, value in filtered.items()]
    partitions = recall["by_partition"].items() if recall else ()
    rows_by_partition = [{"partition": key, "recall@10": f"{one['recall']:.3f}"} for key, one in partitions]
    yield VerdictCheck(
        "ann_recall", _reaches(overall, floors[0]), overall, f"at least {floors[0]:g}", rows_by_partition
    )
    yield VerdictCheck("ann_recall_filtered", _reaches(lowest, floors[1]), lowest, f"at least {floors[1]:g}", rows)


def _floor(relevance: Sequence[Mapping[str, Any]], floor: float | None) -> VerdictCheck:
    labelled = [one for one in relevance if one["query_set"] == "labelled" and one["mode"] == "hybrid"]
    lowest = min((one["ndcg_at_10"] for one in labelled), default=None)
    rows = [
        {
            "query_set": one["query_set"],
            "source": one["source"],
            "mode": one["mode"],
            "nDCG@10": f"{one['ndcg_at_10']:.3f}",
        }
        for one in relevance
    ]
    asked = "nothing is asked" if floor is None else f"at least {floor:g}"
    return VerdictCheck("relevance_floor", floor is None or _reaches(lowest, floor), lowest, asked, rows)


def _regression(findings: Sequence[Mapping[str, Any]], evaluation: EvaluationConfig) -> VerdictCheck:
    rows = [
        {
            "query_set": one["query_set"],
            "mode": one["mode"],
            "before": f"{one['old_mean']:.4f}",
            "now": f"{one['new_mean']:.4f}",
            "p": f"{one['test']['p_value']:.4f}",
            "refused": "yes" if one["refused"] else "no",
        }
        for one in findings
    ]
    worst = min((one["test"]["mean_difference"] for one in findings), default=None)
    asked = f"no loss above {evaluation.max_regression:g} with p < {evaluation.significance:g}"
    passed = not any(one["refused"] for one in findings)
    return VerdictCheck("no_relevance_regression", passed, worst, asked, rows)


def _reaches(value: float | None, floor: float) -> bool:
    return value is None or value >= floor
