"""Ranking chunk ids for one question: the checks before it, the requests to the index, and their fusion."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, Final, Literal

import numpy as np

from rag_core.errors import FingerprintMismatchError, PermanentError
from rag_core.index import lexical, schema
from rag_core.index.bm25 import TermStatistics, question_vector
from rag_core.index.client import IndexClient
from rag_core.index.publish import check_model, resolve
from rag_core.retrieval.filters import SearchFilters
from rag_core.retrieval.fusion import reciprocal_rank_fusion

Mode = Literal["dense", "bm25", "hybrid"]
Unit = Literal["chunk_id", "doc_id"]

MAX_LIMIT: Final = 16_384  # hits that a server returns for one request
_QUERY_BYTES: Final = 8_192


@dataclass(frozen=True, slots=True)
class Candidate:
    """A chunk in a ranking."""

    chunk_id: str
    doc_id: str
    external_id: str
    score: float


@dataclass(frozen=True, slots=True)
class Ranking:
    """Candidates, best first, and whether no more of them exist."""

    candidates: list[Candidate]
    is_whole: bool


@dataclass(frozen=True, slots=True)
class Ranker:
    """One question, checked and ready to be asked at any depth."""

    client: IndexClient
    collection: str
    terms: Mapping[int, float]
    vector: np.ndarray | None
    mode: Mode
    expression: str
    partition_keys: Sequence[str] | None
    nothing: bool
    search_params: Mapping[str, Any]
    consistency: str

    @classmethod
    def prepare(
        cls,
        client: IndexClient,
        target: str,
        *,
        text: str,
        vector: np.ndarray | None,
        model_fingerprint: str | None,
        mode: Mode,
        filters: SearchFilters | None,
        search_params: Mapping[str, Any] | None,
        statistics: TermStatistics | None,
        consistency: str,
    ) -> "Ranker":
        """Check a question against the collection; arguments and errors as in `search`."""
        filters = filters or SearchFilters()
        collection = resolve(client, target)
        if mode != "bm25":
            _check_vector(client, collection, vector, model_fingerprint, mode)
        partition_keys = filters.partition_keys
        if partition_keys is not None:
            existing = set(client.partitions(collection))
            partition_keys = [key for key in partition_keys if schema.partition_name(key) in existing]
        return cls(
            client=client,
            collection=collection,
            terms=_weighed(text, filters, statistics) if mode != "dense" else {},
            vector=None if vector is None else np.ascontiguousarray(vector, dtype=np.float32),
            mode=mode,
            expression=filters.to_expression(),
            partition_keys=partition_keys,
            nothing=filters.admits_nothing or partition_keys == [],
            search_params=search_params or {},
            consistency=consistency,
        )

    def rank(self, depth: int, *, unit: Unit = "chunk_id") -> Ranking:
        """Rank chunks, or documents by their best chunk.

        Args:
            depth: Chunks to ask of each field, up to `MAX_LIMIT`.
            unit: What is ranked, and fused in hybrid mode: `chunk_id` or `doc_id`.

        Returns:
            Each chunk or document once, equal scores in the order of their ids; is_whole if no field had more than
            depth. A document comes as the chunk by which it ranks highest in any field.
        """
        if self.nothing:
            return Ranking([], is_whole=True)
        rankings: list[list[Candidate]] = []
        if self.mode != "bm25":
            rankings.append(self._ask(schema.DENSE, self.vector, depth))
        if self.mode != "dense":
            # A question without a word has no terms; backends differ in what they make of it.
            rankings.append(self._ask(schema.SPARSE, self.terms, depth) if self.terms else [])
        is_whole = all(len(ranking) < depth for ranking in rankings)
        distinct = [_first_of_each(ranking, unit) for ranking in rankings]
        return Ranking(distinct[0] if len(distinct) == 1 else _fused(distinct, unit), is_whole)

    def _ask(self, field: str, query: Any, depth: int) -> list[Candidate]:
        hits = self.client.search(
            self.collection,
            field=field,
            query=query,
            limit=depth,
            fields=("doc_id", "external_id"),
            expression=self.expression,
            partition_keys=self.partition_keys,
            params=self.search_params if field == schema.DENSE else None,
            consistency=self.consistency,
        )
        found: dict[str, Candidate] = {}
        for score, row in hits:
            one = Candidate(row[schema.PRIMARY], row["doc_id"], row["external_id"], score)
            found.setdefault(one.chunk_id, one)
        return sorted(found.values(), key=lambda one: (-one.score, one.chunk_id))


def _weighed(text: str, filters: SearchFilters, statistics: TermStatistics | None) -> dict[int, float]:
    terms = lexical.query_terms(schema.fit(text, _QUERY_BYTES), ("en", *(filters.languages or ())))
    # Without statistics every term weighs the same, which still finds what has most of them.
    return question_vector(terms.split(), statistics or TermStatistics(0, {}))


def _first_of_each(ranking: Sequence[Candidate], unit: Unit) -> list[Candidate]:
    first: dict[str, Candidate] = {}
    for one in ranking:
        first.setdefault(getattr(one, unit), one)
    return list(first.values())


def _fused(rankings: Sequence[Sequence[Candidate]], unit: Unit) -> list[Candidate]:
    # In turns, one rank after the other, so that the first of a name is the one that ranks highest anywhere.
    turns = [one for rank in zip_longest(*rankings) for one in rank if one is not None]
    best = {getattr(one, unit): one for one in reversed(turns)}
    fused = reciprocal_rank_fusion([[getattr(one, unit) for one in ranking] for ranking in rankings])
    return [replace(best[name], score=score) for name, score in fused]


def _check_vector(
    client: IndexClient, collection: str, vector: np.ndarray | None, model_fingerprint: str | None, mode: Mode
) -> None:
    if vector is None or model_fingerprint is None:
        raise PermanentError(f"a {mode} search needs the question's vector and its model's fingerprint")
    meta = client.meta(collection)
    check_model(collection, meta, model_fingerprint)
    if vector.shape != (meta.dim,):
        raise FingerprintMismatchError(
            f"the question's vector has shape {vector.shape}, collection {collection} has dimension {meta.dim}"
        )
