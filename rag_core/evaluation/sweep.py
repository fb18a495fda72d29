"""Choosing the search parameter (`ef`, `nprobe`) by measuring: the cheapest value whose recall meets the floors.

The number of searches is bounded: at most `max_searches` for the curve, and three full measurements to confirm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rag_core.config import EvaluationConfig, IndexConfig
from rag_core.evaluation.ann_recall import ONE_PARTITION, measure_ann
from rag_core.evaluation.ann_result import AnnRecall, Measured
from rag_core.evaluation.ann_search import Ask, Searcher, asks_of, summary
from rag_core.evaluation.ann_truth import Truth
from rag_core.index.client import IndexClient

MAX_SEARCHES: Final = 2_000
_HIGHEST: Final = 4_096  # of ef: at 1 % of the rows some 40 of that many neighbours match
_RUNGS: Final = 10
_PROBES: Final = 20
_DEFAULT_NLIST: Final = 128  # of Milvus and Milvus Lite


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """What one value of the parameter reaches: on the whole collection, and under the hardest filter."""

    value: int
    overall: Measured
    filtered: Measured

    def margin(self, config: EvaluationConfig) -> float:
        """Smallest distance above the two floors; below 0 if one is missed."""
        return min(self.overall.recall - config.min_ann_recall, self.filtered.recall - config.min_filtered_recall)


@dataclass(frozen=True, slots=True)
class Sweep:
    """What was tried and what was chosen.

    Attributes:
        parameter: ef, nprobe or search_list; None if the index type has none.
        points: In ascending order of the parameter; empty without one.
        hardest: Name of the filter of the points' `filtered`; empty without points.
        search_params: Chosen, for the manifest: the configured ones with the parameter's value.
        recall: Full measurement at these; the floors are held against it.
        reasons: Why no value meets the floors, as sentences; empty if the chosen one does.
        searches: All that were made.
    """

    parameter: str | None
    points: tuple[SweepPoint, ...]
    hardest: str
    search_params: Mapping[str, Any]
    recall: AnnRecall
    reasons: tuple[str, ...]
    searches: int

    @property
    def meets_floors(self) -> bool:
        """Whether the chosen parameters reach what is asked."""
        return not self.reasons

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "parameter": self.parameter,
            "points": [
                {"value": one.value, "overall": one.overall.to_dict(), "filtered": one.filtered.to_dict()}
                for one in self.points
            ],
            "hardest": self.hardest,
            "search_params": dict(self.search_params),
            "recall": self.recall.to_dict(),
            "reasons": list(self.reasons),
            "searches": self.searches,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Sweep":
        """Read what `to_dict` wrote."""
        points = tuple(
            SweepPoint(one["value"], Measured.from_dict(one["overall"]), Measured.from_dict(one["filtered"]))
            for one in values["points"]
        )
        return cls(
            parameter=values["parameter"],
            points=points,
            hardest=values["hardest"],
            search_params=values["search_params"],
            recall=AnnRecall.from_dict(values["recall"]),
            reasons=tuple(values["reasons"]),
            searches=values["searches"],
        )


def sweep(
    client: IndexClient,
    collection: str,
    truth: Truth,
    *,
    index: IndexConfig,
    config: EvaluationConfig,
    max_searches: int = MAX_SEARCHES,
) -> Sweep:
    """Measure recall against latency over the values of the search parameter, and choose the cheapest good one.

    Cheapest is the smallest value: work grows with it, whereas latencies of few searches are noise. The value that
    the curve suggests is measured in full; if it misses a floor, so are the next and the largest value.

    Args:
        client: Where to search.
        collection: Its name.
        truth: From `find_truth`, for this collection's metric.
        index: Index of the collection; a configured value of the parameter is tried among the others.
        config: The floors.
        max_searches: Bound of the curve's searches.

    Returns:
        The choice and its full measurement; for index types without a parameter only that, of one measurement.

    Raises:
        TransientError: The server cannot be reached.
    """
    parameter = swept_parameter(index.index_type, lite=client.capabilities.kind == "lite")
    rows = truth.scopes[0].rows
    values = ladder(parameter, index, rows=rows, k=truth.k) if parameter else []
    curve = _Curve(client, collection, truth, parameter or "", index.search_params)
    if len(values) < 2:
        params = {**index.search_params, **({parameter: values[0]} if parameter else {})}
        recall = curve.measure(config, params)
        return Sweep(parameter, (), "", params, recall, recall.missed(config), recall.searches)
    hardest, points = curve.trace(values, max_searches)
    tried: list[AnnRecall] = []
    for value in _candidates(points, config):
        tried.append(curve.measure(config, {**index.search_params, parameter or "": value}))
        if not tried[-1].missed(config):
            break
    chosen = tried[-1] if not tried[-1].missed(config) else max(tried, key=lambda one: _margin(one, config))
    reasons = chosen.missed(config)
    if reasons:
        reasons += (f"No {parameter} from {values[0]} to {values[-1]} meets the floors; the best is taken.",)
    searches = curve.searches + sum(one.searches for one in tried)
    return Sweep(parameter, points, hardest, chosen.search_params, chosen, reasons, searches)


def swept_parameter(index_type: str, *, lite: bool) -> str | None:
    """Return the search parameter that trades recall for time, or None: FLAT is exact, AUTOINDEX chooses by itself.

    Source: https://milvus.io/docs/index-explained.md and the page of each index type.
    """
    if index_type.startswith("HNSW") or (index_type == "AUTOINDEX" and lite):  # which builds HNSW there
        return "ef"
    if "IVF" in index_type or index_type == "SCANN":
        return "nprobe"
    return "search_list" if index_type == "DISKANN" else None


def ladder(parameter: str, index: IndexConfig, *, rows: int, k: int) -> list[int]:
    """Return the values to try, ascending: powers of two between the index's bounds, the configured one among them.

    Args:
        parameter: ef or search_list, which must be k or more, and need not exceed the rows; or nprobe, up to nlist.
        index: Index of the collection.
        rows: Of the collection.
        k: Rows of an answer.
    """
    if parameter == "nprobe":
        low, high = 1, int(index.build_params.get("nlist", _DEFAULT_NLIST))
    else:
        low, high = k, max(min(_HIGHEST, rows), k)
    powers = [2**power for power in range(17) if low < 2**power < high]
    values = sorted({low, *powers[:: len(powers) // (_RUNGS - 1) + 1], high})
    configured = index.search_params.get(parameter)
    return sorted({*values, *([max(int(configured), low)] if configured is not None else [])})


class _Curve:
    """Measures points of one collection, and counts the searches."""

    def __init__(
        self, client: IndexClient, collection: str, truth: Truth, parameter: str, params: Mapping[str, Any]
    ) -> None:
        self._client = client
        self._collection = collection
        self._truth = truth
        self._parameter = parameter
        self._params = dict(params)
        self._searcher = Searcher(client, collection, truth)

    @property
    def searches(self) -> int:
        """Searches of the curve so far, full measurements excluded."""
        return self._searcher.searches

    def measure(self, config: EvaluationConfig, params: Mapping[str, Any]) -> AnnRecall:
        """Measure everything at these parameters."""
        return measure_ann(
            self._client, self._collection, self._truth.vectors, config=config, search_params=params, truth=self._truth
        )

    def trace(self, values: Sequence[int], max_searches: int) -> tuple[str, tuple[SweepPoint, ...]]:
        """Find the filter with the lowest recall at the middle value, and measure every value with and without it."""
        middle = values[len(values) // 2]
        probes = self._filters(_PROBES)
        probed = self._recalls({name: (asks, middle) for name, asks in probes.items()})
        hardest = min(probed, key=lambda name: (probed[name].recall, name))
        each = max(max_searches // (2 * len(values)) - 1, _PROBES)  # one more is made to warm up
        overall = asks_of(self._truth.scopes[0], each)
        filtered = self._filters(each)[hardest]
        wanted = {f"all {value}": (overall, value) for value in values}
        wanted |= {f"filtered {value}": (filtered, value) for value in values}
        measured = self._recalls(wanted)
        points = (SweepPoint(value, measured[f"all {value}"], measured[f"filtered {value}"]) for value in values)
        return hardest, tuple(points)

    def _filters(self, each: int) -> dict[str, list[Ask]]:
        """Searches by filter, at most `each`; those inside partitions are one filter, spread over the partitions."""
        scopes = self._truth.scopes
        asks = {one.scope.name: asks_of(one, each) for one in scopes if one.scope.kind == "filter"}
        inside = [ask for one in scopes if one.scope.kind == "partition" for ask in asks_of(one)]
        step = max(len(inside) // each, 1)
        return asks | ({ONE_PARTITION: inside[::step][:each]} if inside else {})

    def _recalls(self, wanted: Mapping[str, tuple[Sequence[Ask], int]]) -> dict[str, Measured]:
        answers = {
            name: self._searcher.ask(asks, {**self._params, self._parameter: value})
            for name, (asks, value) in wanted.items()
        }
        graded = self._searcher.grade(answers)
        return {
            name: summary(graded[name], asks[0].truth.rows, asks[0].truth.scope.expression)
            for name, (asks, _) in wanted.items()
        }


def _candidates(points: Sequence[SweepPoint], config: EvaluationConfig) -> list[int]:
    """The values to measure in full, in order: the cheapest good one, the one after it, the largest."""
    good = [position for position, one in enumerate(points) if one.margin(config) >= 0]
    if not good:
        return [max(points, key=lambda one: (one.margin(config), -one.value)).value]
    first = good[0]
    return sorted({points[first].value, points[min(first + 1, len(points) - 1)].value, points[-1].value})


def _margin(recall: AnnRecall, config: EvaluationConfig) -> float:
    filtered = min((one.recall for one in recall.by_filter.values()), default=1.0)
    return min(recall.overall.recall - config.min_ann_recall, filtered - config.min_filtered_recall)
