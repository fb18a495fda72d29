"""Confidence intervals of a recall that is a mean over queries."""

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray


def wilson(share: float, trials: float, *, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion; unlike the normal one it is of use near 0 and 1 and for few trials.

    Source: Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22(158);
        equation 4 of Brown, Cai, DasGupta 2001, "Interval Estimation for a Binomial Proportion", Stat. Sci. 16(2).

    Args:
        share: Observed proportion, 0 to 1.
        trials: How many were observed; may be an effective number, with a fraction. 0 gives (0, 1).
        confidence: Two-sided level.

    Returns:
        Lower and upper end, 0 <= lower <= share <= upper <= 1.
    """
    if trials <= 0:
        return 0.0, 1.0
    z2 = NormalDist().inv_cdf(0.5 + confidence / 2) ** 2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = np.sqrt(z2 * (share * (1 - share) / trials + z2 / (4 * trials**2))) / (1 + z2 / trials)
    # At 0 and 1 the ends are exact in the formula, but not in floating point.
    return float(min(max(centre - half, 0.0), share)), float(max(min(centre + half, 1.0), share))


def recall_interval(
    found: NDArray[np.int64], expected: NDArray[np.int64], *, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Mean recall over queries, and its Wilson interval at the effective number of trials.

    The hits of one query are not independent: where the index loses one it often loses several. So the number of
    trials is p(1 - p) over the variance of the mean as it is between queries, at least the number of queries and at
    most the number of hits. Where all queries have the same recall, nothing is known of that and queries count.

    Source: Franco, Little, Louis, Slud 2019, "Comparative Study of Confidence Intervals for Proportions in Complex
        Sample Surveys", J. Survey Stat. Methodol. 7(3): Wilson interval with the effective sample size.

    Args:
        found: (queries,) rows found of those expected.
        expected: (queries,) rows to find, above 0.
        confidence: Two-sided level.

    Returns:
        Mean, lower and upper end; (1, 0, 1) without queries.
    """
    queries = len(found)
    if queries == 0:
        return 1.0, 0.0, 1.0
    recalls = found / expected
    mean = float(recalls.mean())
    variance_of_mean = float(recalls.var(ddof=1)) / queries if queries > 1 else 0.0
    trials = float(queries)
    if variance_of_mean > 0:
        trials = float(np.clip(mean * (1 - mean) / variance_of_mean, queries, expected.sum()))
    low, high = wilson(mean, trials, confidence=confidence)
    return mean, low, high
