"""Searching a collection for the queries of a `Truth`, and grading what comes back."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from rag_core.evaluation.ann_result import Measured
from rag_core.evaluation.ann_truth import ScopeTruth, Truth
from rag_core.evaluation.intervals import recall_interval
from rag_core.index.client import IndexClient
from rag_core.index.schema import DENSE, PRIMARY, partition_name, vectors_of

_EPSILON: Final = 1e-5  # of a score; float32 products of 384 terms in another order differ by some 1e-6
_FIELDS: Final = ("doc_id",)  # named, because Lite returns all fields, vectors too, to a search that names none


@dataclass(frozen=True, slots=True)
class Ask:
    """One search: the scope, and the position of the query in what the scope asks."""

    truth: ScopeTruth
    position: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What a search returned: chunk ids in the server's order, and how long it took."""

    ask: Ask
    hits: tuple[str, ...]
    latency_ms: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """A graded answer: rows to find, those found, hits that repeat another, and whether it was short."""

    query: int
    expected: int
    found: int
    duplicates: int
    is_short: bool
    latency_ms: float


def asks_of(truth: ScopeTruth, at_most: int | None = None) -> list[Ask]:
    """Return a scope's searches, or an evenly spaced part of them."""
    count = len(truth.asked) if at_most is None else min(at_most, len(truth.asked))
    return [Ask(truth, int(one)) for one in np.linspace(0, len(truth.asked) - 1, count).round()]


class Searcher:
    """Asks a collection and grades what comes back. Not to be shared between threads: it times its searches."""

    def __init__(self, client: IndexClient, collection: str, truth: Truth) -> None:
        self._client = client
        self._collection = collection
        self._truth = truth
        self._partitions = set(client.partitions(collection))
        self.searches = 0

    def ask(self, asks: Sequence[Ask], params: Mapping[str, Any]) -> list[Answer]:
        """Search one after the other. The first is made twice, since a cold server would distort its time."""
        if asks:
            self._search(asks[0], params)
        return [self._search(ask, params) for ask in asks]

    def _search(self, ask: Ask, params: Mapping[str, Any]) -> Answer:
        scope, query = ask.truth.scope, int(ask.truth.asked[ask.position])
        if scope.partition_keys is not None and not self._partitions.issuperset(
            map(partition_name, scope.partition_keys)
        ):
            return Answer(ask, (), 0.0)  # the partition is lost, and with it all its rows
        self.searches += 1
        began = time.perf_counter()
        hits = self._client.search(
            self._collection,
            field=DENSE,
            query=self._truth.queries[query],
            limit=self._truth.k,
            fields=_FIELDS,
            expression=scope.expression,
            partition_keys=scope.partition_keys,
            params=params,
        )
        latency_ms = (time.perf_counter() - began) * 1_000
        return Answer(ask, tuple(row[PRIMARY] for _, row in hits), latency_ms)

    def grade(self, answers: Mapping[str, Sequence[Answer]]) -> dict[str, list[Outcome]]:
        """Grade answers by name; all rows that the oracle did not list are read from the table at once."""
        self._truth.stored.load(one for listed in answers.values() for answer in listed for one in _unlisted(answer))
        return {name: [self._graded(answer) for answer in listed] for name, listed in answers.items()}

    def _graded(self, answer: Answer) -> Outcome:
        truth, position = answer.ask.truth, answer.ask.position
        scores = truth.scores[position]
        expected = int(np.isfinite(scores).sum())
        unlisted = _unlisted(answer)
        distinct = set(answer.hits)
        found = len(distinct) - len(unlisted)
        if unlisted and expected:
            # Equal texts have equal vectors: any of them is as near as the one that the oracle happens to list.
            rows = self._truth.stored.rows(sorted(unlisted))
            rows = rows.filter(truth.scope.admits(rows)) if rows.num_rows else rows
            if rows.num_rows:
                exact = self._truth.scores(int(truth.asked[position]), vectors_of(rows))
                found += int((exact >= scores[expected - 1] - _EPSILON).sum())
        return Outcome(
            query=int(truth.asked[position]),
            expected=expected,
            found=min(found, expected),
            duplicates=len(answer.hits) - len(distinct),
            is_short=len(answer.hits) < expected,
            latency_ms=answer.latency_ms,
        )


def _unlisted(answer: Answer) -> set[str]:
    return set(answer.hits).difference(answer.ask.truth.ids[answer.ask.position])


def summary(outcomes: Iterable[Outcome], rows: int, expression: str = "") -> Measured:
    """Sum searches up; those with nothing to find do not count."""
    counted = [one for one in outcomes if one.expected]
    found = np.array([one.found for one in counted], np.int64)
    expected = np.array([one.expected for one in counted], np.int64)
    recall, low, high = recall_interval(found, expected)
    times = [one.latency_ms for one in counted]
    p50, p95 = np.percentile(times, (50, 95)) if times else (0.0, 0.0)
    return Measured(
        recall=recall,
        low=low,
        high=high,
        queries=len(counted),
        rows=rows,
        short_results=sum(one.is_short for one in counted),
        duplicates=sum(one.duplicates for one in counted),
        latency_p50_ms=float(p50),
        latency_p95_ms=float(p95),
        expression=expression,
    )
