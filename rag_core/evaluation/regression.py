"""Whether an index answers worse than the one before: a paired test over the queries that both were asked."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from rag_core.config import EvaluationConfig
from rag_core.errors import PermanentError

RESAMPLES: Final = 9_999
_BATCH: Final = 500  # resamples at once, which bounds memory: 500 times the queries, as float64
_MEASURE: Final = "ndcg_at_10"

GroupKey = tuple[str, str, str]
"""Query set, source, mode."""


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Outcome of a paired test.

    Attributes:
        mean_difference: Mean of new minus old; below zero the new one is worse.
        p_value: Probability of a mean this far from zero, in either direction, if old and new did not differ.
        low: Lower end of the bootstrap interval of the mean difference.
        high: Upper end.
        queries: Pairs that were compared.
    """

    mean_difference: float
    p_value: float
    low: float
    high: float
    queries: int


def paired_test(old: ArrayLike, new: ArrayLike, *, seed: int = 0, confidence: float = 0.95) -> PairedTest:
    """Test whether two systems differ, by randomisation, and estimate by how much, by bootstrap.

    If the systems did not differ, each query's two values could as well be the other way round: the sign of each
    difference is flipped at random 9,999 times, or in every way where there are no more. No distribution is assumed.

    Source: Smucker, Allan, Carterette 2007, "A Comparison of Statistical Significance Tests for Information Retrieval
        Evaluation", CIKM: the randomisation test agrees with the t-test; Wilcoxon and sign test mislead. Interval:
        Efron, Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13 (percentile).

    Args:
        old: (n,) a value per query.
        new: (n,) of the same queries, in the same order.
        seed: Of the resampling; the same values and seed give the same outcome.
        confidence: Level of the interval.

    Raises:
        ValueError: The lengths differ, there is no pair, or a value is not finite.
    """
    before, after = np.asarray(old, np.float64), np.asarray(new, np.float64)
    if before.shape != after.shape or before.ndim != 1 or not before.size:
        raise ValueError(
            f"a paired test needs two values of each query, at least one; got {before.shape}, {after.shape}"
        )
    differences = after - before
    if not np.isfinite(differences).all():
        raise ValueError("a value of a query is not finite")
    low, high = mean_interval(differences, seed=seed, confidence=confidence)
    return PairedTest(float(differences.mean()), _p_value(differences, seed), low, high, len(differences))


def mean_interval(values: NDArray[np.float64], *, seed: int = 0, confidence: float = 0.95) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean; with one value, or equal ones, it is a point."""
    from scipy.stats import bootstrap

    if not np.ptp(values):
        return float(values[0]), float(values[0])
    interval = bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=_BATCH,
        vectorized=True,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def _p_value(differences: NDArray[np.float64], seed: int) -> float:
    from scipy.stats import permutation_test

    if len(differences) == 1 or not differences.any():
        return 1.0  # whatever the signs, the mean is as far from zero
    outcome = permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",  # of one sample: its signs
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=_BATCH,
        rng=np.random.default_rng(seed),
    )
    return float(outcome.pvalue)


@dataclass(frozen=True, slots=True)
class Finding:
    """Old against new, in one mode on one query set.

    Attributes:
        query_set: labelled or known_item.
        source: Source that was searched; `*` for all.
        mode: dense, bm25 or hybrid.
        measure: What is compared: ndcg_at_10.
        old_mean: Over the queries that both were asked.
        new_mean: Over the same.
        test: The paired test.
        refused: Whether the loss is both larger than is accepted and no chance.
        significance: Level of the test.
        max_regression: Loss that is accepted.
    """

    query_set: str
    source: str
    mode: str
    measure: str
    old_mean: float
    new_mean: float
    test: PairedTest
    refused: bool
    significance: float
    max_regression: float

    @property
    def sentence(self) -> str:
        """What was found, for a person."""
        test = self.test
        change = f"{self.measure} {self.old_mean:.4f} -> {self.new_mean:.4f} ({test.mean_difference:+.4f})"
        certainty = f"p = {test.p_value:.4f}, 95 % interval {test.low:+.4f} to {test.high:+.4f}"
        limit = f"refused: a loss above {self.max_regression:g} with p < {self.significance:g}"
        where = "all sources" if self.source == "*" else self.source
        text = f"{self.mode} on {self.query_set} queries of {where}: {change}; {test.queries} queries, {certainty}"
        return f"{text}; {limit}" if self.refused else text

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, JSON-able."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Finding":
        """Return what `to_dict` was given."""
        return cls(**{**values, "test": PairedTest(**values["test"])})


def regression(old: pa.Table, new: pa.Table, config: EvaluationConfig, *, seed: int = 0) -> list[Finding]:
    """Compare two evaluations, sets and modes separately, on the queries that both have.

    Args:
        old: Rows of `retrieval_eval` of one evaluation.
        new: Rows of another; of the same collection or another.
        config: What loss is accepted, and the level of the test.
        seed: Of the test.

    Returns:
        One finding per query set, source and mode that both have, in that order; those that are `refused` must not be
        published, the others are for the report. Sets that share no query give none: there is nothing to compare.

    Raises:
        PermanentError: An evaluation has a query twice, so that it is more than one evaluation.
    """
    before, after = grouped(old), grouped(new)
    found = []
    for key in sorted(before.keys() & after.keys()):
        common = sorted(before[key].keys() & after[key].keys())
        if common:
            values = [[rows[query] for query in common] for rows in (before[key], after[key])]
            found.append(_finding(key, values, config, seed))
    return found


def grouped(rows: pa.Table, measure: str = _MEASURE) -> dict[GroupKey, dict[str, float]]:
    """Return a measure by query id, by query set, source and mode.

    Raises:
        PermanentError: A query occurs twice.
    """
    groups: dict[GroupKey, dict[str, float]] = {}
    for row in rows.select(["query_set", "source", "mode", "query_id", measure]).to_pylist():
        group = groups.setdefault((row["query_set"], row["source"], row["mode"]), {})
        if row["query_id"] in group:
            raise PermanentError(f"query {row['query_id']} occurs twice in one evaluation of {row['source']}")
        group[row["query_id"]] = row[measure]
    return groups


def _finding(key: GroupKey, values: Sequence[Sequence[float]], config: EvaluationConfig, seed: int) -> Finding:
    test = paired_test(values[0], values[1], seed=seed)
    return Finding(
        *key,
        measure=_MEASURE,
        old_mean=float(np.mean(values[0])),
        new_mean=float(np.mean(values[1])),
        test=test,
        refused=-test.mean_difference > config.max_regression and test.p_value < config.significance,
        significance=config.significance,
        max_regression=config.max_regression,
    )
