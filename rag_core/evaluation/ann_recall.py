"""ANN recall@k: what a collection's dense index finds of the exact nearest rows, overall, per partition, under filters.

The oracle is in `ann_truth`, the searches are in `ann_search`; which search parameters are worth their time is decided
in `sweep`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rag_core.config import EvaluationConfig
from rag_core.evaluation.ann_result import AnnRecall, Measured
from rag_core.evaluation.ann_search import Outcome, Searcher, asks_of, summary
from rag_core.evaluation.ann_truth import K, Truth, find_truth
from rag_core.index.client import IndexClient
from rag_core.tables.delta import TableSlice

ONE_PARTITION: Final = "one partition"


def measure_ann(
    client: IndexClient,
    collection: str,
    vectors: TableSlice,
    queries: NDArray[np.float32] | None = None,
    *,
    config: EvaluationConfig,
    partition_keys: Sequence[str] | None = None,
    search_params: Mapping[str, Any] | None = None,
    chunks: TableSlice | None = None,
    truth: Truth | None = None,
    k: int = K,
) -> AnnRecall:
    """Measure the recall of a collection's dense index against exact search in the table `embeddings`.

    Searches: `config.samples` and as many given queries, once overall and once under each filter, and at least five
    in each partition.

    Args:
        client: Where to search.
        collection: Its name.
        vectors: Table `embeddings` in the generation's lane: what the collection must hold. A row that the collection
            lacks counts as not found.
        queries: (n, dim) float32 vectors of questions, asked besides stored vectors.
        config: The `evaluation` section.
        partition_keys: Partitions that the collection must hold; None for all.
        search_params: Of the dense index, such as ef.
        chunks: Table `chunks` in the generation's lane; without it no access label is measured.
        truth: From `find_truth`, to measure several settings against; it then says what is asked.
        k: Rows of an answer.

    Raises:
        TransientError: The server cannot be reached.
        FingerprintMismatchError: Queries, table and collection differ in dimension.
    """
    if truth is None:
        truth = find_truth(
            vectors,
            queries,
            samples=config.samples,
            partition_keys=partition_keys,
            chunks=chunks,
            metric=client.meta(collection).metric,
            k=k,
        )
    searcher = Searcher(client, collection, truth)
    answers = {one.scope.name: searcher.ask(asks_of(one), search_params or {}) for one in truth.scopes}
    outcomes = searcher.grade(answers)
    named = {one.scope.name: one for one in truth.scopes}
    measured = {name: summary(outcomes[name], one.rows, one.scope.expression) for name, one in named.items()}
    of_kind = {kind: [one for one in named.values() if one.scope.kind == kind] for kind in ("filter", "partition")}
    by_filter = {one.scope.name: measured[one.scope.name] for one in of_kind["filter"]}
    inside = [outcome for one in of_kind["partition"] for outcome in outcomes[one.scope.name]]
    if inside:
        by_filter[ONE_PARTITION] = summary(inside, max(one.rows for one in of_kind["partition"]))
    return AnnRecall(
        k=truth.k,
        search_params=dict(search_params or {}),
        overall=measured["all"],
        by_partition={one.scope.name: measured[one.scope.name] for one in of_kind["partition"]},
        by_filter=by_filter,
        by_query=_by_query(truth, outcomes["all"], named["all"].rows),
        searches=searcher.searches,
        unusable=truth.unusable,
    )


def _by_query(truth: Truth, outcomes: Sequence[Outcome], rows: int) -> dict[str, Measured]:
    split = {kind: [one for one in outcomes if truth.kinds[one.query] == kind] for kind in ("stored", "given")}
    return {kind: summary(some, rows) for kind, some in split.items() if some}
