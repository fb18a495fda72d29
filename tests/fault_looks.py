"""What is run to find a planted fault, each time over all partitions: declared tests, anti-entropy, the verdict."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from rag_core.config import EvaluationConfig, IndexConfig
from rag_core.evaluation.ann_recall import measure_ann
from rag_core.evaluation.known_item import known_items
from rag_core.evaluation.relevance import last_rows
from rag_core.index.client import IndexClient
from rag_core.stages.verdict import Verdict, newest_verdict
from rag_core.stages.verdict_checks import verdict_checks
from rag_core.tables.delta import TableSlice
from tests.ann_support import clustered, fill, store_rows, with_vectors
from tests.ann_support import slices as clustered_slices
from tests.fault_world import EVERYWHERE, Findings, World, failed_tests, index_findings

Look = Callable[[World, IndexClient | None], Findings]

_CLUSTERED = "clustered"
_CLUSTERED_KEYS = ("handbook__00", "handbook__01", "mail__00")
_CLUSTERED_ROWS, _CLUSTERED_DIM, _QUESTIONS = 3_600, 64, 40
_FLOORS = EvaluationConfig(samples=40)


def in_tables(world: World, _: IndexClient | None = None) -> Findings:
    """Look at the declared tests of all tables."""
    return failed_tests(world.test())


def in_tables_and_index(world: World, client: IndexClient | None) -> Findings:
    """Look at what Milvus holds, and at the alias, as well."""
    assert client is not None
    return in_tables(world) | index_findings(world, client)


def in_verdict(world: World, client: IndexClient | None) -> Findings:
    """Look at both recalls as well; of relevance, at which partitions' documents are found worse than before."""
    assert client is not None
    before = newest_verdict(world.store, world.generation.collection)
    assert before is not None
    verdict = world.judge(client)
    found = in_tables_and_index(world, client) | failed_checks(verdict, world.config.evaluation)
    assert verdict.passed is not any(place == "index_verdict" for place, _ in found), verdict.reasons
    for key, count in worse_questions(world, before.judged_at).items():
        found["retrieval_eval", key] = {"ndcg_at_10": count}
    return found


def failed_checks(verdict: Verdict, config: EvaluationConfig) -> Findings:
    """Sum up the checks of a verdict that fail."""
    failed = {check.name: len(check.details) for check in verdict_checks(verdict, config) if not check.passed}
    return {("index_verdict", EVERYWHERE): failed} if failed else {}


def worse_questions(world: World, before: datetime) -> dict[str, int]:
    """Count by partition the known items whose documents dense search ranks lower than it did."""
    documents = TableSlice.newest(world.store, "documents").read(["doc_id", "partition_key"])
    partition_of = dict(zip(documents["doc_id"].to_pylist(), documents["partition_key"].to_pylist(), strict=True))
    asked = known_items(TableSlice.newest(world.store, "documents"), world.config.evaluation.known_items)
    collection = world.generation.collection

    def ranked(until: datetime) -> dict[str, float]:
        rows = last_rows(world.store, collection, until=until).to_pylist()
        return {row["query_id"]: row["ndcg_at_10"] for row in rows if row["mode"] == "dense"}

    then, now = ranked(before), ranked(datetime.now(UTC))
    worse: dict[str, int] = {}
    for item in asked:
        if now[item.query_id] < then[item.query_id]:
            key = partition_of[item.doc_id]
            worse[key] = worse.get(key, 0) + 1
    return worse


def clustered_index(world: World, client: IndexClient | None) -> None:
    """Make a collection whose sparse HNSW graph needs a long candidate list, beside that of the world."""
    assert client is not None
    table = with_vectors(clustered(_CLUSTERED_ROWS, _CLUSTERED_DIM), _CLUSTERED_KEYS)
    store_rows(world.store, table)
    index = IndexConfig(index_type="HNSW", build_params={"M": 4, "efConstruction": 40})
    fill(client, _CLUSTERED, table, index, dim=_CLUSTERED_DIM)


def recall_at(ef: int) -> Look:
    """Look at the recall of the clustered index with a candidate list of this length, and at everything else."""

    def look(world: World, client: IndexClient | None) -> Findings:
        assert client is not None
        vectors, chunks = clustered_slices(world.store)
        # Questions that are like no stored vector: these are what a short candidate list loses first.
        questions = clustered(_QUESTIONS, _CLUSTERED_DIM, seed=1)
        recall = measure_ann(
            client, _CLUSTERED, vectors, questions, config=_FLOORS, search_params={"ef": ef}, chunks=chunks
        )
        verdict = newest_verdict(world.store, world.generation.collection)
        assert verdict is not None
        measured = replace(verdict, measures={**verdict.measures, "ann": {"recall": recall.to_dict()}})
        return in_tables_and_index(world, client) | failed_checks(measured, _FLOORS)

    return look
