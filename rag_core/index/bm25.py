"""BM25 as an inner product of sparse vectors, so that scores are the same on every backend and in every segment.

Milvus can compute BM25 itself, but Milvus Lite counts document frequencies by segment: a document that was just written
has a segment of its own, where every word is common, and ranks below old ones for the rarest word. Here the weight of a
term in a chunk is stored, the weight of a term in a question comes from frequencies counted over the whole collection,
and the score is their product:

    score(Q, D) = sum over t in Q of  idf(t) * tf(t, D) * (k1 + 1) / (tf(t, D) + k1 * (1 - b + b * |D| / avgdl))
    idf(t) = ln(1 + (N - n(t) + 0.5) / (n(t) + 0.5))

Source: Robertson, Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009; idf as in Lucene.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

K1: Final = 1.2  # Lucene's and Milvus's default
B: Final = 0.75
# |D| / avgdl must not depend on what else is stored, or every chunk would have to be written again as the mean moves.
# Chunks have a bounded number of tokens, so a constant near the mean of 254-token chunks of English text serves.
AVERAGE_TERMS: Final = 128


@lru_cache(131_072)
def term_id(term: str) -> int:
    """Return a term's dimension, above 0: 31 bits of its digest. Of 100,000 terms about two pairs share one."""
    return int.from_bytes(hashlib.blake2b(term.encode(), digest_size=4).digest()) & 0x7FFFFFFF or 1


def chunk_vector(terms: Iterable[str]) -> dict[int, float]:
    """Weigh the terms of a chunk; term id -> weight, in no particular order. Empty for a chunk without terms."""
    counts = Counter(map(term_id, terms))
    length = K1 * (1 - B + B * counts.total() / AVERAGE_TERMS)
    return {number: count * (K1 + 1) / (count + length) for number, count in counts.items()}


@dataclass(frozen=True)
class TermStatistics:
    """In how many chunks each term occurs.

    Attributes:
        chunks: Chunks that were counted: all of a small collection, a sample of a large one.
        frequencies: Term id -> chunks with the term. A term that is missing is taken for rare.
    """

    chunks: int
    frequencies: Mapping[int, int]

    def idf(self, number: int) -> float:
        """Return the inverse document frequency; above zero for every term."""
        with_term = self.frequencies.get(number, 0)
        # More chunks than were counted may hold the term by now.
        return math.log1p((max(self.chunks, with_term) - with_term + 0.5) / (with_term + 0.5))


def question_vector(terms: Iterable[str], statistics: TermStatistics) -> dict[int, float]:
    """Weigh the terms of a question by their rarity; term id -> idf."""
    return {number: statistics.idf(number) for number in map(term_id, dict.fromkeys(terms))}


def count_terms(chunks: Iterable[Iterable[str]]) -> TermStatistics:
    """Count in how many of the chunks each term occurs."""
    frequencies: Counter[int] = Counter()
    total = 0
    for terms in chunks:
        frequencies.update({term_id(term) for term in terms})
        total += 1
    return TermStatistics(total, frequencies)


def fingerprint_parts() -> dict[str, Any]:
    """Return what the stored weights depend on, for the collection's fingerprint."""
    return {"k1": K1, "b": B, "average_terms": AVERAGE_TERMS, "term_id": "blake2b-31"}
