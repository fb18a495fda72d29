"""Ranking chunk ids for one question: the checks before it, the requests to the index, and their fusion."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any, Final, Literal, get_args

import numpy as np

from rag_core.errors import FingerprintMismatchError, PermanentError
from rag_core.index import lexical, schema
from rag_core.index.bm25 import TermStatistics, question_vector
from rag_core.index.client import Consistency, IndexClient
from rag_core.index.publish import check_model, resolve
from rag_core.retrieval.filters import SearchFilters
from rag_core.retrieval.fusion import reciprocal_rank_fusion

Mode = Literal["dense", "bm25", "hybrid"]
Unit = Literal["chunk_id", "doc_id"]

MODES: Final[tuple[Mode, ...]] = get_args(Mode)
"""All modes of search."""

MAX_LIMIT: Final = 16_384  # hits that a server returns for one request
_QUERY_BYTES: Final = 8_192
_IDS: Final = ("doc_id", "external_id")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A chunk in a ranking.

    Attributes:
        chunk_id: Its id.
        doc_id: Of its document.
        external_id: The source's own id of the document.
        score: Higher is better.
        row: The fields that were asked for.
    """

    chunk_id: str
    doc_id: str
    external_id: str
    score: float
    row: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Ranking:
    """Candidates, best first, and whether no more of them exist."""

    candidates: list[Candidate]
    is_whole: bool


@dataclass(frozen=True, slots=True)
class FieldRequest:
    """One question to one field of a collection; those of equal `group` can be asked in one request to a server.

    Attributes:
        field: `schema.DENSE` or `schema.SPARSE`.
        query: Its vector.
        collection: Its name.
        depth: Most hits.
        expression: Milvus filter.
        partition_keys: Dagster partitions; None for all.
        params: Search parameters, as JSON with sorted keys.
        consistency: What must be seen.
        fields: To bring along; at least the ids of the document.
    """

    field: str
    query: Any
    collection: str
    depth: int
    expression: str
    partition_keys: tuple[str, ...] | None
    params: str
    consistency: Consistency
    fields: tuple[str, ...] = _IDS

    @property
    def group(self) -> tuple[Any, ...]:
        """All but the query."""
        return (self.field, self.collection, self.depth, self.expression, self.partition_keys, self.params,
                self.consistency, self.fields)  # fmt: skip


def modes_of(client: IndexClient, *collections: str) -> tuple[Mode, ...]:
    """Return the modes in which all of these collections can be searched."""
    has_words = all(client.meta(one).lexical for one in collections)
    return tuple(mode for mode in MODES if has_words or mode != "bm25")


def ask(client: IndexClient, requests: Sequence[FieldRequest]) -> list[list[Candidate]]:
    """Ask requests of one group in one request to the server.

    Returns:
        The candidates of each, best first, each chunk once; equal scores in the order of chunk_id.
    """
    first = requests[0]
    answers = client.search_many(
        first.collection,
        field=first.field,
        queries=[request.query for request in requests],
        limit=first.depth,
        fields=first.fields,
        expression=first.expression,
        partition_keys=first.partition_keys,
        params=json.loads(first.params) if first.field == schema.DENSE else None,
        consistency=first.consistency,
    )
    return [_in_order(hits) for hits in answers]


def _in_order(hits: Sequence[tuple[float, Mapping[str, Any]]]) -> list[Candidate]:
    found: dict[str, Candidate] = {}
    for score, row in hits:
        one = Candidate(row[schema.PRIMARY], row["doc_id"], row["external_id"], score, row)
        found.setdefault(one.chunk_id, one)
    return sorted(found.values(), key=lambda one: (-one.score, one.chunk_id))


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
    has_words: bool
    search_params: Mapping[str, Any]
    consistency: Consistency

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
        consistency: Consistency,
    ) -> "Ranker":
        """Check a question against what `target` names; arguments and errors as in `search`."""
        return cls.of(
            client,
            resolve(client, target),
            text=text,
            vector=vector,
            model_fingerprint=model_fingerprint,
            mode=mode,
            filters=filters,
            search_params=search_params,
            statistics=statistics,
            consistency=consistency,
        )

    @classmethod
    def of(
        cls,
        client: IndexClient,
        collection: str,
        *,
        text: str,
        vector: np.ndarray | None,
        model_fingerprint: str | None,
        mode: Mode,
        filters: SearchFilters | None,
        search_params: Mapping[str, Any] | None,
        statistics: TermStatistics | None,
        consistency: Consistency,
    ) -> "Ranker":
        """Check a question against a collection, by its own name; else as `prepare`.

        Of a collection that was asked before nothing is asked of the server here, unless partitions are named.
        """
        filters = filters or SearchFilters()
        has_words = client.meta(collection).lexical
        if mode == "bm25" and not has_words:
            raise PermanentError(
                f"collection {collection} has no words to search by (index.lexical is false); ask by mode dense, or "
                f"hybrid, which is the same there"
            )
        if mode != "bm25":
            _check_vector(client, collection, vector, model_fingerprint, mode)
        partition_keys = filters.partition_keys
        if partition_keys is not None:
            existing = set(client.partitions(collection))
            partition_keys = [key for key in partition_keys if schema.partition_name(key) in existing]
        return cls(
            client=client,
            collection=collection,
            terms=_weighed(text, filters, statistics) if mode != "dense" and has_words else {},
            vector=None if vector is None else np.ascontiguousarray(vector, dtype=np.float32),
            mode=mode,
            expression=filters.to_expression(),
            partition_keys=partition_keys,
            nothing=filters.admits_nothing or partition_keys == [],
            has_words=has_words,
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
        return self.combine(
            [[] if request is None else ask(self.client, [request])[0] for request in self.requests(depth)],
            depth,
            unit=unit,
        )

    def requests(self, depth: int, fields: Sequence[str] = _IDS) -> list[FieldRequest | None]:
        """Return what to ask of each vector field of the mode, dense first; None where there is nothing to ask.

        Of a collection without words, hybrid asks for what is near alone.
        """
        asked: list[tuple[str, Any]] = []
        if self.mode != "bm25":
            asked.append((schema.DENSE, self.vector))
        if self.mode != "dense" and self.has_words:
            # A question without a word has no terms; backends differ in what they make of it.
            asked.append((schema.SPARSE, self.terms or None))
        return [
            None if self.nothing or query is None else self._request(vectors, query, depth, fields)
            for vectors, query in asked
        ]

    def combine(
        self,
        rankings: Sequence[Sequence[Candidate]],
        depth: int,
        *,
        unit: Unit = "chunk_id",
        weights: Sequence[float] | None = None,
    ) -> Ranking:
        """Make one ranking of those of the fields.

        Args:
            rankings: What `requests` gave, in its order; empty where there was nothing to ask.
            depth: As in `requests`.
            unit: As in `rank`.
            weights: Of each field; default: the same.
        """
        is_whole = all(len(ranking) < depth for ranking in rankings)
        distinct = [_first_of_each(ranking, unit) for ranking in rankings]
        return Ranking(distinct[0] if len(distinct) == 1 else _fused(distinct, unit, weights), is_whole)

    def _request(self, vectors: str, query: Any, depth: int, fields: Sequence[str]) -> FieldRequest:
        return FieldRequest(
            field=vectors,
            query=query,
            collection=self.collection,
            depth=depth,
            expression=self.expression,
            partition_keys=None if self.partition_keys is None else tuple(self.partition_keys),
            params=json.dumps(dict(self.search_params), sort_keys=True),
            consistency=self.consistency,
            fields=tuple(fields),
        )


def _weighed(text: str, filters: SearchFilters, statistics: TermStatistics | None) -> dict[int, float]:
    terms = lexical.query_terms(schema.fit(text, _QUERY_BYTES), ("en", *(filters.languages or ())))
    # Without statistics every term weighs the same, which still finds what has most of them.
    return question_vector(terms.split(), statistics or TermStatistics(0, {}))


def _first_of_each(ranking: Sequence[Candidate], unit: Unit) -> list[Candidate]:
    first: dict[str, Candidate] = {}
    for one in ranking:
        first.setdefault(getattr(one, unit), one)
    return list(first.values())


def _fused(rankings: Sequence[Sequence[Candidate]], unit: Unit, weights: Sequence[float] | None) -> list[Candidate]:
    # In turns, one rank after the other, so that the first of a name is the one that ranks highest anywhere.
    turns = [one for rank in zip_longest(*rankings) for one in rank if one is not None]
    best = {getattr(one, unit): one for one in reversed(turns)}
    fused = reciprocal_rank_fusion([[getattr(one, unit) for one in ranking] for ranking in rankings], weights=weights)
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
