"""Score candidate sentences against a question, decide whether they bear on it, and choose a diverse few."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rag_core.answering.sentences import Unit
from rag_core.answering.terms import has_number, idf

_CONTEXT_WEIGHT: Final = 0.4  # a term in the heading counts, but less than in the sentence itself
_LEXICAL_SHARE: Final = 0.4
_RANK_SHARE: Final = 0.1
_LEXICAL_SUPPORT: Final = 0.3
_LEXICAL_CERTAINTY: Final = 0.75
_NUMBER_FACTOR: Final = 1.2  # "within 1 hour" goes before other sentences on the topic of "how quickly"
_MMR_LAMBDA: Final = 0.7
_WEAKEST: Final = 0.6  # of the best sentence's relevance; below, a sentence only pads the answer


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sentence that may be quoted.

    Attributes:
        rank: Place of its hit, from 0.
        unit: Where it stands and how it reads.
        own: Its terms.
        context: Terms of title, headings and what stands before it.
        embedded: The text that is embedded for it: section and sentence.
    """

    rank: int
    unit: Unit
    own: set[str]
    context: set[str]
    embedded: str


def coverage(asked: set[str], candidates: Sequence[Candidate]) -> NDArray[np.float64]:
    """Share of the question's idf that a candidate holds, its context's terms at `_CONTEXT_WEIGHT`; (n,), 0 to 1."""
    weights = idf(sorted(asked), [candidate.own for candidate in candidates])
    total = sum(weights.values())

    def covered(candidate: Candidate) -> float:
        own = sum(weights[term] for term in sorted(asked & candidate.own))
        context = sum(weights[term] for term in sorted((asked & candidate.context) - candidate.own))
        return (own + _CONTEXT_WEIGHT * context) / total

    return np.array([covered(candidate) for candidate in candidates])


def supported(covered: NDArray[np.float64], similar: NDArray[np.float64] | None, min_similarity: float) -> bool:
    """Decide whether the best candidates bear on the question at all.

    Measured on the example corpus and on Cranfield, MiniLM, eight hits each: the highest similarity of a candidate is
    0.52 or more for 25 questions that the documents answer (0.48 or more for 99 of 100 Cranfield queries), and 0.45 or
    less for 161 questions that they do not (foreign topics, and each collection's questions asked of the other). A
    question on a topic of the documents, about a fact that they leave out, is not told apart by this.

    Sharing nearly all weight of the question's terms is support too: names and numbers are what embeddings know least.
    No unanswerable question reached 0.75. Without similarity, terms have to do, and do worse: from 0.3 on, 24 of the 25
    and 74 of the 100 pass, and 5 of the 161.
    """
    best = float(covered.max())
    if similar is None:
        return best >= _LEXICAL_SUPPORT
    return float(similar.max()) >= min_similarity or best >= _LEXICAL_CERTAINTY


def relevance_of(
    candidates: Sequence[Candidate],
    covered: NDArray[np.float64],
    similar: NDArray[np.float64] | None,
    *,
    hits: int,
    number_wanted: bool,
) -> NDArray[np.float64]:
    """Mix coverage, similarity and the hit's rank; without similarity, coverage takes its share.

    Fragments lose, and sentences with a number win when the question wants one.
    """
    prior = np.array([1 - candidate.rank / hits for candidate in candidates])
    match = covered if similar is None else _LEXICAL_SHARE * covered + (1 - _LEXICAL_SHARE) * similar
    words = np.array([len(candidate.unit.plain.split()) for candidate in candidates])
    wholeness = np.minimum(1.0, 0.7 + 0.06 * words)  # "Stop Now" is a heading in disguise; five words count in full
    numbered = np.array([number_wanted and has_number(candidate.unit.plain) for candidate in candidates])
    fit = wholeness * np.where(numbered, _NUMBER_FACTOR, 1.0)
    relevance: NDArray[np.float64] = fit * ((1 - _RANK_SHARE) * match + _RANK_SHARE * prior)
    return relevance


def jaccard(sets: Sequence[set[str]]) -> NDArray[np.float64]:
    """Return shared terms over all terms of each pair, (n, n); what stands in for cosine without an embedder."""
    return np.array([[len(a & b) / (len(a | b) or 1) for b in sets] for a in sets])


def choose(relevance: NDArray[np.float64], alike: NDArray[np.floating], count: int) -> list[int]:
    """Choose up to `count` candidates by maximal marginal relevance; ties go to the earlier candidate.

    The next is the one with the highest lambda * relevance - (1 - lambda) * similarity to its nearest chosen one.

    Source: Carbonell and Goldstein 1998, "The Use of MMR, Diversity-Based Reranking", SIGIR.
    """
    chosen = [int(np.argmax(relevance))]
    eligible = relevance >= _WEAKEST * relevance.max()
    while len(chosen) < count:
        gain = _MMR_LAMBDA * relevance - (1 - _MMR_LAMBDA) * alike[:, chosen].max(axis=1)
        gain[~eligible] = -np.inf
        gain[chosen] = -np.inf
        best = int(np.argmax(gain))
        if gain[best] == -np.inf:
            break
        chosen.append(best)
    return chosen


def with_lists(chosen: list[int], candidates: Sequence[Candidate], count: int) -> list[int]:
    """Put the first items of a list behind its chosen lead-in: "follow these steps:" alone says nothing."""
    whole: list[int] = []
    for at in chosen:
        whole.append(at)
        lead = candidates[at].unit.plain
        if lead.endswith(":"):
            following = range(at + 1, len(candidates))
            whole += [
                n for n in following if candidates[n].rank == candidates[at].rank and candidates[n].unit.lead == lead
            ]
    return list(dict.fromkeys(whole))[:count]
