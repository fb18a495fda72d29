"""Judging a generation: all that is measured before publication, and what speaks against it.

Order: what is wrong is looked for first (checks, anti-entropy), then how good it is (ANN recall, relevance), then,
where another generation is served, the two side by side on the same questions.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final

import pyarrow as pa

from rag_core import ids
from rag_core.evaluation.ann_truth import find_truth
from rag_core.evaluation.compare import Comparison, compare
from rag_core.evaluation.leaks import find_leaks
from rag_core.evaluation.query_sets import QuerySet, query_sets
from rag_core.evaluation.regression import regression
from rag_core.evaluation.relevance import Relevance, append_rows, last_rows, measure_relevance, relevance_rows
from rag_core.evaluation.sweep import sweep
from rag_core.evaluation.target import QueryVectors, SearchTarget
from rag_core.generation import Generation
from rag_core.index.anti_entropy import partitions_of, verify
from rag_core.index.client import IndexClient
from rag_core.index.ledger import LedgerTables
from rag_core.partitions import all_partition_keys
from rag_core.quality.gate import gate
from rag_core.stages import term_statistics
from rag_core.stages.common import Progress, no_progress
from rag_core.stages.publication import Generations, latest_manifest
from rag_core.stages.verdict import Verdict, judged_versions, newest_verdict, settings_digest
from rag_core.tables.delta import TableSlice
from rag_core.tables.store import Store

_UNNOTICED_MS: Final = 25.0  # below this difference a slower p95 is no reason: nobody notices it
_LEAK_QUESTIONS: Final = 100


def judge(
    store: Store, known: Generations, client: IndexClient, *, run_id: str, on_progress: Progress = no_progress
) -> Verdict:
    """Measure the target and give the verdict on it. The rows of `retrieval_eval` are written, the verdict is not.

    Args:
        store: Holds the tables.
        known: The target, which must be complete, and what is served.
        client: Connected to the Milvus that holds both.
        run_id: Kept with the rows.
        on_progress: Told of the steps.
    """
    judging = _Judging(store, known, client, run_id)
    wrong = (judging.check, judging.compare_with_ledger)
    steps = (*wrong, judging.measure_ann, judging.measure_relevance, judging.compare)
    for number, step in enumerate(steps):
        on_progress("steps of the verdict", number, len(steps))
        # What is compared and measured was written before, by runs that have ended or hold their partitions back.
        with client.settled():
            step()
    on_progress("steps of the verdict", len(steps), len(steps))
    return judging.verdict()


class _Judging:
    """Measures a generation step by step, gathering figures and reasons against it."""

    def __init__(self, store: Store, known: Generations, client: IndexClient, run_id: str) -> None:
        self._store = store
        self._target = known.target
        self._served = known.served
        self._client = client
        self._run_id = run_id
        self._versions = judged_versions(store)
        self._last = newest_verdict(store, known.target.collection)
        self._evaluation = known.target.config.evaluation
        self._keys = all_partition_keys(known.target.config)
        self._vectors = QueryVectors()
        self._search_params: Mapping[str, Any] = known.target.config.index.search_params
        self._rows = relevance_rows([], evaluated_at=datetime.now(UTC))
        self._measures: dict[str, Any] = {"settings": settings_digest(known.target)}
        self._reasons: list[str] = []

    @cached_property
    def _sets(self) -> list[QuerySet]:
        return query_sets(self._store, self._target.config)

    @cached_property
    def _questions(self) -> list[str]:
        return [text for one in self._sets for text in one.queries.values()]

    def verdict(self) -> Verdict:
        """Sum up."""
        against = self._served.collection if self._served else ""
        ledger = TableSlice.newest(self._store, "index_partitions", lane=self._target.collection)
        judged = (self._target.collection, against, str(ledger.version), self._measures["settings"])
        return Verdict(
            verdict_id=ids.digest(*judged),
            collection=self._target.collection,
            against=against,
            judged_at=datetime.now(UTC),
            run_id=self._run_id,
            passed=not self._reasons,
            reasons=tuple(self._reasons),
            search_params=self._search_params,
            measures=self._measures,
            table_versions=self._versions,
            chunks=ledger.count(),
        )

    def check(self) -> None:
        """Run the blocking checks of every partition of every table, or look up what they gave."""
        target = self._target
        lanes = {"documents": None, "chunks": target.chunk_lane, "embeddings": target.embedding_lane}
        held: list[str] = []
        for table, lane in {**lanes, "index_partitions": target.collection}.items():
            slice_ = TableSlice.newest(self._store, table, self._keys, lane=lane)
            for key, failed in gate(slice_, target.config, run_id=self._run_id).held.items():
                self._reasons.append(f"partition {key} of {table} fails a blocking check: {'; '.join(failed)}")
                held.append(f"{table}/{key}")
        self._measures["held"] = held

    def compare_with_ledger(self) -> None:
        """Compare what Milvus holds with the ledger."""
        tables = LedgerTables.of_generation(self._store, self._target)
        partitions = partitions_of(self._client, tables, self._keys)
        unclean = [state for state in verify(self._client, tables, partitions) if not state.is_clean]
        self._measures["entropy"] = {
            "partitions": len(partitions),
            "unclean": [state.to_dict() for state in unclean],
        }
        for state in unclean:
            found = ", ".join(f"{count:,} {kind}" for kind, count in state.counts.items() if count)
            self._reasons.append(
                f"partition {state.partition_key}: Milvus holds {state.index_rows:,} rows, the ledger "
                f"{state.ledger_rows:,} ({found or 'nobody knows the partition'}); "
                f"`rag verify --repair --collection {state.collection}` mends it"
            )

    def measure_ann(self) -> None:
        """Hold ANN recall against its floors, and choose the search parameters."""
        target = self._target
        truth = find_truth(
            TableSlice.newest(self._store, "embeddings", lane=target.embedding_lane),
            self._vectors.of(target, self._questions[: self._evaluation.samples]) if self._questions else None,
            samples=self._evaluation.samples,
            chunks=TableSlice.newest(self._store, "chunks", lane=target.chunk_lane),
            metric=target.config.index.metric,
        )
        chosen = sweep(self._client, target.collection, truth, index=target.config.index, config=self._evaluation)
        self._search_params = chosen.search_params
        self._measures["ann"] = chosen.to_dict()
        self._reasons += chosen.reasons

    def measure_relevance(self) -> None:
        """Ask the labelled or generated questions, keep the rows, and hold nDCG@10 against its floor."""
        measured = measure_relevance(self._client, self._searched(self._target, self._search_params), self._sets)
        self._rows = relevance_rows(measured, evaluated_at=datetime.now(UTC))
        append_rows(self._store, self._rows, run_id=self._run_id)
        self._measures["relevance"] = [one.to_dict() for one in measured]
        self._reasons += _below_floor(measured, self._evaluation.min_ndcg_at_10)

    def compare(self) -> None:
        """Compare with the served generation, or with the target's own last verdict, and look for leaks."""
        before = self._compare_served(self._served) if self._served else self._before()
        found = regression(before, self._rows, self._evaluation) if before is not None else []
        self._measures["regression"] = [one.to_dict() for one in found]
        self._reasons += [one.sentence for one in found if one.refused]

    def _before(self) -> pa.Table | None:
        """Look for leaks; return the rows that the target last passed with."""
        target = self._searched(self._target, self._search_params)
        leaks = find_leaks(self._client, self._store, target, self._questions[:_LEAK_QUESTIONS])
        self._measures["leaks"] = asdict(leaks)
        self._leaked(leaks.leaked)
        if self._last is None or not self._last.passed:
            return None
        return last_rows(self._store, self._target.collection, until=self._last.judged_at)

    def _compare_served(self, served: Generation) -> pa.Table:
        """Ask both generations the same questions; return the served one's rows."""
        manifest = latest_manifest(self._store)
        old = self._searched(served, json.loads(manifest.search_params) if manifest else {})
        rows = relevance_rows(measure_relevance(self._client, old, self._sets), evaluated_at=datetime.now(UTC))
        append_rows(self._store, rows, run_id=self._run_id)
        if self._questions:
            new = self._searched(self._target, self._search_params)
            both = compare(self._client, self._store, old, new, self._sets)
            self._measures["comparison"] = both.to_dict()
            self._reasons += _against_served(both, self._target)
            self._leaked(both.leaked)
        return rows

    def _leaked(self, rows: int) -> None:
        if rows:
            self._reasons.append(f"{rows:,} rows were shown to principals who may not read them")

    def _searched(self, generation: Generation, search_params: Mapping[str, Any]) -> SearchTarget:
        version = term_statistics.refresh(self._store, generation.chunk_lane, run_id=self._run_id)
        statistics = term_statistics.load(self._store, version, generation.chunk_lane)
        return SearchTarget.of(generation, self._vectors, statistics=statistics, search_params=search_params)


def _below_floor(measured: Sequence[Relevance], floor: float | None) -> list[str]:
    means = {one.source: one.to_dict() for one in measured if one.query_set == "labelled" and one.mode == "hybrid"}
    return [
        f"nDCG@10 of hybrid search on the labelled queries of {source} is {found['ndcg_at_10']:.3f}, "
        f"evaluation.min_ndcg_at_10 is {floor:g}"
        for source, found in means.items()
        if floor is not None and found["ndcg_at_10"] < floor
    ]


def _against_served(both: Comparison, target: Generation) -> list[str]:
    evaluation, reasons = target.config.evaluation, []
    overlap = both.agreement["hybrid"].overlap_at_10
    if evaluation.min_overlap is not None and overlap < evaluation.min_overlap:
        reasons.append(
            f"overlap@10 with the served index is {overlap:.2f}, evaluation.min_overlap is {evaluation.min_overlap:g}"
        )
    old, new = both.old.latency["hybrid"].p95_ms, both.new.latency["hybrid"].p95_ms
    if both.latency_ratio() > evaluation.max_latency_ratio and new - old > _UNNOTICED_MS:
        reasons.append(
            f"p95 of a hybrid search is {new:.0f} ms, of the served index {old:.0f} ms; "
            f"evaluation.max_latency_ratio is {evaluation.max_latency_ratio:g}"
        )
    for source, counts in both.old.counts.items():
        held = both.new.counts[source].documents if source in both.new.counts else 0
        if held < counts.documents:
            reasons.append(f"source {source}: {held:,} documents, the served index holds {counts.documents:,}")
    return reasons
