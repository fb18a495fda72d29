"""What was measured of ANN recall, as it is kept: plain values that go to JSON and come back."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rag_core.config import EvaluationConfig


@dataclass(frozen=True, slots=True)
class Measured:
    """Recall of some searches.

    Attributes:
        recall: Mean over queries of the share of the min(k, matching) exact nearest rows that was found.
        low: Lower end of its 95 % interval.
        high: Upper end.
        queries: Searches that had something to find.
        rows: Rows of the table that match the restriction.
        short_results: Searches that returned fewer rows than k and than match.
        duplicates: Hits that repeat a row of the same result; they count as wrong.
        latency_p50_ms: Median time of a search, as the client sees it.
        latency_p95_ms: 95th percentile of it.
        expression: Milvus filter; empty if there is none.
    """

    recall: float
    low: float
    high: float
    queries: int
    rows: int
    short_results: int
    duplicates: int
    latency_p50_ms: float
    latency_p95_ms: float
    expression: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON, with `latency_ms` as {p50, p95}."""
        values = asdict(self)
        latency = {"p50": values.pop("latency_p50_ms"), "p95": values.pop("latency_p95_ms")}
        return values | {"latency_ms": latency}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Measured":
        """Read what `to_dict` wrote."""
        rest = {name: value for name, value in values.items() if name != "latency_ms"}
        latency = values["latency_ms"]
        return cls(**rest, latency_p50_ms=latency["p50"], latency_p95_ms=latency["p95"])


@dataclass(frozen=True, slots=True)
class AnnRecall:
    """ANN recall of a collection with one setting of its search parameters.

    Attributes:
        k: Rows of an answer.
        search_params: Of the dense index.
        overall: Searches of the whole collection.
        by_partition: Partition key -> its own vectors searched for inside the partition.
        by_filter: "1 % of rows", "10 % of rows", "one source", "one access label", "one partition" (all partitions'
            searches together) -> searches under that filter.
        by_query: "stored" vectors and "given" questions -> their part of `overall`.
        searches: Searches that were made.
        unusable: Sampled vectors that cannot be searched for: zero, or not finite.
    """

    k: int
    search_params: Mapping[str, Any]
    overall: Measured
    by_partition: Mapping[str, Measured]
    by_filter: Mapping[str, Measured]
    by_query: Mapping[str, Measured] = field(default_factory=dict)
    searches: int = 0
    unusable: int = 0

    def missed(self, config: EvaluationConfig) -> tuple[str, ...]:
        """Return what falls below the floors, as sentences; empty if nothing does.

        A single partition is measured with few queries, so it misses its floor only if its whole interval is below.
        """
        name = f"ANN recall@{self.k}"
        reasons = []
        if self.overall.recall < config.min_ann_recall:
            reasons.append(f"{name} is {_said(self.overall)}, below the floor of {config.min_ann_recall:g}.")
        for filtered, one in self.by_filter.items():
            if one.recall < config.min_filtered_recall:
                short = f"; {one.short_results} of {one.queries} results are short" if one.short_results else ""
                reasons.append(
                    f"{name} under the filter {filtered!r} is {_said(one)}, below the floor of "
                    f"{config.min_filtered_recall:g}{short}."
                )
        for key, one in self.by_partition.items():
            if one.high < config.min_filtered_recall:
                reasons.append(
                    f"{name} in partition {key} is {_said(one)}, surely below the floor of "
                    f"{config.min_filtered_recall:g}."
                )
        return tuple(reasons)

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "k": self.k,
            "search_params": dict(self.search_params),
            "overall": self.overall.to_dict(),
            "by_partition": {name: one.to_dict() for name, one in self.by_partition.items()},
            "by_filter": {name: one.to_dict() for name, one in self.by_filter.items()},
            "by_query": {name: one.to_dict() for name, one in self.by_query.items()},
            "searches": self.searches,
            "unusable": self.unusable,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "AnnRecall":
        """Read what `to_dict` wrote."""
        groups: dict[str, Any] = {
            group: {name: Measured.from_dict(one) for name, one in values[group].items()}
            for group in ("by_partition", "by_filter", "by_query")
        }
        plain: dict[str, Any] = {name: values[name] for name in ("k", "search_params", "searches", "unusable")}
        return cls(overall=Measured.from_dict(values["overall"]), **groups, **plain)


def _said(one: Measured) -> str:
    return f"{one.recall:.3f} ({one.low:.3f} to {one.high:.3f}, {one.queries} queries)"
