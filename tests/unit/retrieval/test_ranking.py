from typing import Any

import numpy as np
import pytest

from rag_core.retrieval.ranking import Ranker, Unit


class TwoRankings:
    """Answers a search of each field with a fixed ranking of (chunk, document)."""

    def __init__(self, **rankings: list[tuple[str, str]]) -> None:
        self.rankings = rankings

    def search_many(
        self, collection: str, *, field: str, queries: list[object], limit: int, **_: object
    ) -> list[list[tuple[float, dict[str, Any]]]]:
        rows = self.rankings[field][:limit]
        hits = [(1.0 / n, {"chunk_id": c, "doc_id": d, "external_id": d}) for n, (c, d) in enumerate(rows, start=1)]
        return [hits for _ in queries]


def ranked(depth: int, unit: Unit) -> tuple[list[tuple[str, str, float]], bool]:
    client = TwoRankings(
        dense=[("a1", "a"), ("a2", "a"), ("b1", "b")],
        sparse=[("b2", "b"), ("c1", "c"), ("a3", "a"), ("b1", "b")],
    )
    ranker = Ranker(client, "c", {1: 1.0}, np.ones(2), "hybrid", "", None, False, True, {}, "Strong")  # type: ignore[arg-type]
    ranking = ranker.rank(depth, unit=unit)
    return [(one.chunk_id, one.doc_id, round(one.score, 6)) for one in ranking.candidates], ranking.is_whole


def points(*ranks: int) -> float:
    return round(sum(1 / (60 + rank) for rank in ranks), 6)


def test_chunks_are_fused_by_their_ranks() -> None:
    found, is_whole = ranked(10, "chunk_id")
    assert is_whole
    assert found == [
        ("b1", "b", points(3, 4)),
        ("a1", "a", points(1)),
        ("b2", "b", points(1)),
        ("a2", "a", points(2)),
        ("c1", "c", points(2)),
        ("a3", "a", points(3)),
    ]


def test_documents_are_fused_by_the_ranks_of_their_best_chunks() -> None:
    found, is_whole = ranked(10, "doc_id")
    assert is_whole
    assert found == [("b2", "b", points(1, 2)), ("a1", "a", points(1, 3)), ("c1", "c", points(2))]


@pytest.mark.parametrize("depth", [3, 4])
def test_ranking_that_may_go_on_is_not_whole(depth: int) -> None:
    assert ranked(depth, "doc_id")[1] is False
