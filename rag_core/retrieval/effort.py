"""How much a search is worth: the weights of words and meaning, and the parameters of the dense index. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rag_core.answering.terms import question_terms
from rag_core.index import lexical
from rag_core.index.bm25 import TermStatistics, term_id

SHORT_TERMS: Final = 2
"""A question of so few terms is a look-up: its words say more than its meaning."""

BUSY: Final = 0.5
"""Load from which the cheapest parameters that meet the floor are used."""

_RARE_SHARE: Final = 1 / 500
_SHORT_WEIGHT: Final = 1.5
_RARE_WEIGHT: Final = 1.25
# E1234, CVE-2024-1, rag_core, "exact words"; in any case, because results are kept for questions without regard to it
_NAMED: Final = re.compile(r"\b(?=\w*\d)(?=\w*[^\W\d])[\w-]+|\b\w+_\w+\b|\"[^\"]+\"|\b[a-z]{2,}-\d+\b", re.IGNORECASE)


@dataclass(frozen=True)
class Curve:
    """The measured values of the dense index's parameter.

    Attributes:
        parameter: ef, nprobe or search_list.
        values: All that were measured, ascending.
        good: Those that meet the recall floors, ascending.
    """

    parameter: str
    values: tuple[int, ...]
    good: tuple[int, ...]


@dataclass(frozen=True)
class Effort:
    """What a search is made with.

    Attributes:
        dense_weight: Of the ranks by meaning, in hybrid mode.
        bm25_weight: Of the ranks by words.
        search_params: Of the dense index.
        reasons: Why it is not as usual: short, named, rare, busy.
    """

    dense_weight: float
    bm25_weight: float
    search_params: Mapping[str, Any]
    reasons: tuple[str, ...] = ()

    @property
    def weights(self) -> Sequence[float]:
        """Both weights, dense first."""
        return (self.dense_weight, self.bm25_weight)

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "dense_weight": self.dense_weight,
            "bm25_weight": self.bm25_weight,
            "search_params": dict(self.search_params),
            "reasons": list(self.reasons),
        }


def effort_for(
    question: str,
    *,
    search_params: Mapping[str, Any],
    statistics: TermStatistics | None = None,
    curve: Curve | None = None,
    load: float = 0.0,
) -> Effort:
    """Choose by the question and the load.

    A look-up (few terms, an identifier, a quoted phrase, a rare word) gives BM25 more weight and searches the dense
    index wider, by one measured value: what it looks for is one passage, not any of many. Under load the dense index is
    searched with the smallest measured value that meets the floors.

    Args:
        question: As it was asked.
        search_params: Of the manifest.
        statistics: How rare terms are.
        curve: What was measured; None: the parameters stay as they are.
        load: Share of the capacity that waits, 0 and up.
    """
    reasons: list[str] = []
    weight = 1.0
    terms = question_terms(question)
    if _NAMED.search(question):
        reasons.append("named")
        weight = _SHORT_WEIGHT
    elif 0 < len(terms) <= SHORT_TERMS:
        reasons.append("short")
        weight = _SHORT_WEIGHT
    elif statistics is not None and _has_rare(question, statistics):
        reasons.append("rare")
        weight = _RARE_WEIGHT
    params = dict(search_params)
    if curve is not None and curve.parameter in params:
        chosen = int(params[curve.parameter])
        if load >= BUSY:
            reasons.append("busy")
            params[curve.parameter] = min(curve.good, default=chosen)
        elif reasons:
            params[curve.parameter] = min((value for value in curve.values if value > chosen), default=chosen)
    return Effort(1.0, weight, params, tuple(reasons))


def _has_rare(question: str, statistics: TermStatistics) -> bool:
    """Whether a term occurs, but hardly anywhere. One that occurs nowhere finds nothing, whatever its weight."""
    most = max(1.0, statistics.chunks * _RARE_SHARE)
    counts = (statistics.frequencies.get(term_id(term), 0) for term in lexical.query_terms(question, ("en",)).split())
    return any(0 < count <= most for count in counts)
