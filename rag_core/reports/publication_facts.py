"""What a verdict measured, read back for its page: recall, relevance, old against new, and the plots of each."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import pyarrow as pa

from rag_core.config import RagConfig
from rag_core.evaluation.ann_plots import plot_partitions, plot_sweep
from rag_core.evaluation.ann_result import AnnRecall, Measured
from rag_core.evaluation.compare import Comparison
from rag_core.evaluation.regression import Finding
from rag_core.evaluation.relevance import last_rows
from rag_core.evaluation.relevance_plots import difference_plot, means_plot
from rag_core.evaluation.sweep import Sweep
from rag_core.reports.formats import themed
from rag_core.retrieval.ranking import MODES
from rag_core.stages.verdict import Verdict
from rag_core.tables.store import Store

_MEANS: Final = ("ndcg_at_10", "recall_at_10", "recall_at_100", "mrr")


@dataclass(frozen=True)
class RecallRow:
    """A line of the table of ANN recall; `floor` is what it is held against."""

    name: str
    measured: Measured
    floor: float

    @property
    def tone(self) -> str:
        """Whether the floor is met; a partition, measured with few searches, misses it if its whole interval does."""
        return "good" if self.measured.recall >= self.floor else "warn" if self.measured.high >= self.floor else "bad"


@dataclass(frozen=True)
class RelevanceRow:
    """Means of a query set in a mode, new and, where it was measured, old; the paired test between them."""

    query_set: str
    source: str
    mode: str
    queries: int
    new: Mapping[str, float]
    old: Mapping[str, float] | None
    finding: Finding | None


@dataclass(frozen=True)
class PublicationFacts:
    """What the page of a verdict shows of its measures.

    Attributes:
        sweep: ANN recall over the search parameter; None if it was not measured.
        recall: Of the chosen parameters: overall, under each filter, in each partition.
        recall_plots: SVG, for inside a page.
        relevance: By query set, source and mode.
        relevance_plots: SVG.
        comparison: With the served collection; None for the first, or the served one itself.
        leaks: What the filter by access label let through; None if it was not looked for.
        entropy: Partitions of Milvus that differ from the ledger, as `rag verify` describes them; None if not compared.
    """

    sweep: Sweep | None
    recall: tuple[RecallRow, ...]
    recall_plots: tuple[str, ...]
    relevance: tuple[RelevanceRow, ...]
    relevance_plots: tuple[str, ...]
    comparison: Comparison | None
    leaks: Mapping[str, Any] | None
    entropy: Mapping[str, Any] | None

    def recall_of(self, name: str) -> float | None:
        """Return a recall of the table by its name; None if it was not measured."""
        return next((one.measured.recall for one in self.recall if one.name == name), None)


def publication_facts(store: Store, config: RagConfig, verdict: Verdict) -> PublicationFacts:
    """Read the measures of a verdict, and the queries' own figures from `retrieval_eval`."""
    measures = verdict.measures
    sweep = Sweep.from_dict(measures["ann"]) if measures.get("ann") else None
    comparison = Comparison.from_dict(measures["comparison"]) if measures.get("comparison") else None
    new = _at(store, verdict.collection, verdict)
    old = _at(store, verdict.against, verdict) if verdict.against else None
    findings = [Finding.from_dict(one) for one in measures.get("regression", [])]
    return PublicationFacts(
        sweep=sweep,
        recall=tuple(_recall_rows(sweep.recall, config)) if sweep else (),
        recall_plots=_recall_plots(sweep, config) if sweep else (),
        relevance=tuple(_relevance_rows(measures.get("relevance", []), old, findings)),
        relevance_plots=tuple(_relevance_plots(old, new)),
        comparison=comparison,
        leaks=asdict(comparison.new.leaks) if comparison else measures.get("leaks"),
        entropy=measures.get("entropy"),
    )


def _at(store: Store, collection: str, verdict: Verdict) -> pa.Table:
    """Read the last evaluation of a collection that the verdict can have been based on."""
    return last_rows(store, collection, until=verdict.judged_at)


def _recall_rows(recall: AnnRecall, config: RagConfig) -> list[RecallRow]:
    floor, filtered = config.evaluation.min_ann_recall, config.evaluation.min_filtered_recall
    rows = [RecallRow("whole collection", recall.overall, floor)]
    rows += [RecallRow(f"filter: {name}", one, filtered) for name, one in recall.by_filter.items()]
    worst = sorted(recall.by_partition.items(), key=lambda item: (item[1].recall, item[0]))
    return rows + [RecallRow(f"partition {name}", one, filtered) for name, one in worst]


def _recall_plots(sweep: Sweep, config: RagConfig) -> tuple[str, ...]:
    plots = [plot_partitions(sweep.recall, config.evaluation)]
    if sweep.points:  # without a parameter the curve is one point, which the table says better
        plots.insert(0, plot_sweep(sweep, config.evaluation))
    return tuple(themed(plot, f"recall{place}") for place, plot in enumerate(plots))


def _relevance_rows(
    means: Sequence[Mapping[str, Any]], old: pa.Table | None, findings: Sequence[Finding]
) -> list[RelevanceRow]:
    tests = {(one.query_set, one.source, one.mode): one for one in findings}
    before = _means(old) if old is not None else {}
    rows = []
    for one in means:
        key = (one["query_set"], one["source"], one["mode"])
        new = {name: one[name] for name in _MEANS}
        rows.append(RelevanceRow(*key, one["queries"], new, before.get(key), tests.get(key)))
    return rows


def _means(rows: pa.Table) -> dict[tuple[str, str, str], dict[str, float]]:
    keys = ["query_set", "source", "mode"]
    grouped = rows.group_by(keys).aggregate([(name, "mean") for name in _MEANS]).to_pylist()
    return {
        (row["query_set"], row["source"], row["mode"]): {name: row[f"{name}_mean"] for name in _MEANS}
        for row in grouped
    }


def _relevance_plots(old: pa.Table | None, new: pa.Table) -> list[str]:
    """Draw means by mode for each query set, and, where there is an old side, hybrid search query by query."""
    plots = []
    sets = (
        new.group_by(["query_set", "source"])
        .aggregate([])
        .sort_by([("query_set", "descending"), ("source", "ascending")])
    )
    before = set(_means(old)) if old is not None else set()
    for row in sets.to_pylist():
        plots.append(means_plot(old, new, **row))
        if (row["query_set"], row["source"], MODES[-1]) in before:
            plots.append(difference_plot(old, new, **row, mode=MODES[-1]))
    return [themed(plot, f"relevance{place}") for place, plot in enumerate(plots)]
