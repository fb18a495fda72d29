"""Relevance, regression and comparison on a real Milvus Lite, over a slice of Cranfield embedded by the real model."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from rag_core import ids
from rag_core.config import EvaluationConfig, FilesSource, LabelledQueries, RagConfig, StoreConfig
from rag_core.errors import FingerprintMismatchError
from rag_core.evaluation.beir import LabelledQueryError, load_qrels, load_queries
from rag_core.evaluation.compare import Comparison, compare
from rag_core.evaluation.leaks import find_leaks
from rag_core.evaluation.query_sets import ALL_SOURCES, QuerySet, query_sets
from rag_core.evaluation.regression import Finding, regression
from rag_core.evaluation.relevance import append_rows, last_rows, measure_relevance, relevance_rows
from rag_core.evaluation.target import QueryVectors, SearchTarget
from rag_core.generation import configured
from rag_core.index import lite_server
from rag_core.index.bm25 import count_terms
from rag_core.index.client import IndexClient, connect
from rag_core.index.lexical import index_terms
from rag_core.retrieval.ranking import MODES
from rag_core.schemas import DOCUMENTS, INDEX_PARTITIONS
from rag_core.tables.delta import ensure_table
from rag_core.tables.store import Store
from tests.index_support import CONFIG, EPOCH, rows

pytestmark = [pytest.mark.milvus, pytest.mark.corpora]
PARTITION = "cranfield__00"
QUERIES = 20
LABELS = [ids.access_label([f"group-{number}"]) for number in range(3)]
UNLABELLED = 50


@dataclass(frozen=True)
class Bench:
    """Two collections over the same texts: `right`, and `shuffled`, whose vectors belong to other texts."""

    client: IndexClient
    store: Store
    config: RagConfig
    right: SearchTarget
    shuffled: SearchTarget
    sets: list[QuerySet]


@pytest.fixture(scope="module")
def bench(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("relevance")
    store = Store(str(folder / "data"))
    texts, labelled = _part_of_cranfield(corpora / "cranfield", folder)
    config = RagConfig(
        store=StoreConfig(root=store.root),
        sources=(
            FilesSource(name="cranfield", kind="files", root=folder),
            FilesSource(name="unlabelled", kind="files", root=folder),
        ),
        evaluation=EvaluationConfig(labelled=(labelled,), known_items=30),
    )
    generation, vectors = configured(config), QueryVectors()
    embedded = vectors.of(generation, list(texts.values()))
    table = _chunks(texts, embedded, generation.spec.fingerprint, unlabelled=UNLABELLED)
    _write_documents(store, table)
    statistics = count_terms(index_terms(text, "en").split() for text in texts.values())
    target = SearchTarget.of(generation, vectors, statistics=statistics)
    with connect(CONFIG, store) as client:
        _fill(client, store, "right", table)
        order = np.random.default_rng(5).permutation(len(texts))
        _fill(client, store, "shuffled", _replaced(table, vector=table["vector"].take(order)))
        yield Bench(
            client=client,
            store=store,
            config=config,
            right=replace(target, collection="right"),
            shuffled=replace(target, collection="shuffled"),
            sets=query_sets(store, config),
        )
    lite_server.stop(lite_server.lite_files(store))


def _part_of_cranfield(corpus: Path, folder: Path) -> tuple[dict[str, str], LabelledQueries]:
    """Take some queries and their documents, which get new numbers, and further ones for the source without labels."""
    qrels = load_qrels(corpus / "qrels.tsv")
    queries = dict(list(load_queries(corpus / "queries.jsonl").items())[:QUERIES])
    relevant = {name for query in queries for name, score in qrels[query].items() if score > 0}
    records = [json.loads(line) for line in (corpus / "docs.jsonl").read_text(encoding="utf-8").splitlines()]
    chosen = sorted(records, key=lambda record: record["_id"] not in relevant)[: len(relevant) + UNLABELLED]
    numbers = {record["_id"]: str(number) for number, record in enumerate(chosen)}
    asked = [json.dumps({"_id": query, "text": text}) for query, text in queries.items()]
    judged = [
        f"{query}\t{numbers[name]}\t{score}"
        for query in queries
        for name, score in qrels[query].items()
        if name in numbers
    ]
    entry = LabelledQueries(source="cranfield", queries=folder / "queries.jsonl", qrels=folder / "qrels.tsv")
    entry.queries.write_text("\n".join(asked), encoding="utf-8")
    entry.qrels.write_text("\n".join(judged), encoding="utf-8")
    return {numbers[record["_id"]]: record["text"] for record in chosen}, entry


def _chunks(texts: dict[str, str], vectors: np.ndarray, model: str, *, unlabelled: int = 0) -> pa.Table:
    """One chunk for each text; the last ones are of the source without labels."""
    names = list(texts)
    return _replaced(
        rows(range(len(texts)), context="", heading_path=[], partition_key=PARTITION),
        source=["cranfield"] * (len(names) - unlabelled) + ["unlabelled"] * unlabelled,
        chunk_id=[ids.digest(name) for name in names],
        doc_id=[ids.doc_id("cranfield", name) for name in names],
        external_id=names,
        text=list(texts.values()),
        text_hash=[ids.text_hash(text) for text in texts.values()],
        access_label=[LABELS[number % len(LABELS)] for number in range(len(names))],
        model_fingerprint=[model] * len(names),
        vector=pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel(), pa.float32()), vectors.shape[1]),
    )


def _replaced(table: pa.Table, **columns: object) -> pa.Table:
    for name, values in columns.items():
        array = pa.array(values) if isinstance(values, list) else values
        table = table.set_column(table.schema.get_field_index(name), name, array)
    return table


def _write_documents(store: Store, table: pa.Table) -> None:
    copied = ["partition_key", "doc_id", "source", "external_id", "uri", "mime", "text", "text_hash", "access_label"]
    made = [
        {
            **row, "object_key": row["external_id"], "object_id": row["doc_id"], "member": "", "size_bytes": 1,
            "object_fingerprint": "f", "content_hash": "c", "principals": [], "status": "ok",
            "parser_fingerprint": "p", "doc_hash": row["text_hash"], "ingested_at": EPOCH,
        }
        for row in table.select(copied).to_pylist()
    ]  # fmt: skip
    write_deltalake(ensure_table(store, "documents"), pa.Table.from_pylist(made, schema=DOCUMENTS), mode="append")


def _fill(client: IndexClient, store: Store, collection: str, table: pa.Table) -> None:
    model, dim = table["model_fingerprint"][0].as_py(), table.schema.field("vector").type.list_size
    client.ensure_collection(collection, dim=dim, model_fingerprint=model)
    client.ensure_partition(collection, PARTITION)
    client.upsert(collection, PARTITION, table)
    client.flush(collection)
    held = table.select([name for name in INDEX_PARTITIONS.names if name in table.column_names]).to_pylist()
    ledger = [{**row, "collection": collection, "indexed_at": EPOCH} for row in held]
    rows_of_it = pa.Table.from_pylist(ledger, schema=INDEX_PARTITIONS)
    write_deltalake(ensure_table(store, "index_partitions"), rows_of_it, mode="append")


def test_sets_are_the_labelled_one_and_known_items_of_the_rest(bench: Bench) -> None:
    labelled, known = bench.sets
    assert (labelled.name, labelled.source, len(labelled.queries)) == ("labelled", "cranfield", QUERIES)
    assert (known.name, known.source) == ("known_item", ALL_SOURCES)
    assert 10 < len(known.queries) <= 30
    assert query_sets(bench.store, bench.config) == bench.sets


def test_right_mapping_is_relevant_and_a_shuffled_one_is_a_large_significant_loss(bench: Bench) -> None:
    before = measure_relevance(bench.client, bench.right, bench.sets)
    after = measure_relevance(bench.client, bench.shuffled, bench.sets)
    means = {(one.query_set, one.mode): one.result.means()["ndcg_at_10"] for one in before}
    assert min(means["labelled", mode] for mode in MODES) > 0.3
    assert min(means["known_item", mode] for mode in MODES) > 0.7

    now = datetime.now(UTC)
    old, new = (relevance_rows(measured, evaluated_at=now) for measured in (before, after))
    found = {(one.query_set, one.mode): one for one in regression(old, new, bench.config.evaluation)}
    for name in ("labelled", "known_item"):
        dense = found[name, "dense"]
        assert dense.refused
        assert dense.test.p_value < 0.001
        assert dense.test.high < -0.2
        assert found[name, "hybrid"].refused
        assert found[name, "bm25"].test.mean_difference == 0  # texts are where they belong
    assert not any(one.refused for one in regression(old, old, bench.config.evaluation))


def test_known_items_are_judged_by_document_and_not_by_external_id(bench: Bench) -> None:
    [measured] = measure_relevance(bench.client, bench.right, bench.sets[1:], modes=["bm25"])
    assert measured.result.without_ranking == 0
    assert measured.to_dict()["queries"] == len(bench.sets[1].queries)
    assert set(measured.to_rows(EPOCH)["source"].to_pylist()) == {"*"}


def test_rows_are_kept_and_those_of_the_publication_are_found_again(bench: Bench) -> None:
    measured = measure_relevance(bench.client, bench.right, bench.sets[:1], modes=["bm25"])
    published = EPOCH + timedelta(hours=1)
    for at in (EPOCH, published + timedelta(hours=1)):
        append_rows(bench.store, relevance_rows(measured, evaluated_at=at), run_id="r")
    assert set(last_rows(bench.store, "right", until=published)["evaluated_at"].to_pylist()) == {EPOCH}
    newest = last_rows(bench.store, "right")
    assert newest.num_rows == QUERIES
    assert set(newest["query_set"].to_pylist()) == {"labelled"}
    assert last_rows(bench.store, "never").num_rows == 0


def test_other_model_is_refused(bench: Bench) -> None:
    other = SearchTarget("right", "other", bench.right.embed)
    with pytest.raises(FingerprintMismatchError, match="other"):
        measure_relevance(bench.client, other, bench.sets[:1], modes=["dense"])


def test_comparison_with_itself_agrees_and_with_a_shuffled_one_does_not(bench: Bench) -> None:
    same = compare(bench.client, bench.store, bench.right, bench.right, bench.sets, modes=["dense"], max_questions=10)
    assert same.questions == 10
    assert same.agreement["dense"].overlap_at_10 == 1
    assert same.agreement["dense"].rank_biased_overlap == pytest.approx(1)

    other = compare(bench.client, bench.store, bench.right, bench.shuffled, bench.sets, max_questions=10)
    assert other.agreement["dense"].overlap_at_10 < 0.3
    assert other.agreement["bm25"].overlap_at_10 == 1
    assert 0 < other.old.latency["hybrid"].p50_ms <= other.old.latency["hybrid"].p95_ms
    assert other.latency_ratio() > 0
    counts = other.new.counts["cranfield"]  # by partition: both sources lie in one here
    assert counts.documents == counts.chunks == bench.client.count("shuffled")
    assert Comparison.from_dict(json.loads(json.dumps(other.to_dict()))) == other
    assert other.leaked == 0


def test_rows_under_another_label_and_of_documents_that_are_gone_leak(bench: Bench) -> None:
    questions = list(bench.sets[0].queries.values())[:5]
    clean = find_leaks(bench.client, bench.store, bench.right, questions)
    assert (clean.labels, clean.leaked) == (3, 0)
    assert clean.documents > 50

    model = bench.right.model_fingerprint
    stray = _chunks({"stray": questions[0]}, bench.right.embed(questions[:1]), model)
    try:
        bench.client.upsert("right", PARTITION, stray)
        gone = find_leaks(bench.client, bench.store, bench.right, questions)
        # A row of document 0, which has the first label, under the second.
        mislabelled = _replaced(stray, doc_id=[ids.doc_id("cranfield", "0")], access_label=[LABELS[1]])
        bench.client.upsert("right", PARTITION, mislabelled)
        other = find_leaks(bench.client, bench.store, bench.right, questions)
    finally:
        bench.client.delete("right", PARTITION, stray["chunk_id"].to_pylist())
    assert (gone.leaked, other.leaked) == (1, 1)
    assert "is gone" in gone.examples[0]
    assert "has label" in other.examples[0]


def test_labelled_queries_without_any_relevant_document(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"_id": "1", "text": "what?"}\n')
    (tmp_path / "r.tsv").write_text("1\td\t0\n")
    entry = LabelledQueries(source="cranfield", queries=tmp_path / "q.jsonl", qrels=tmp_path / "r.tsv")
    config = bench.config.model_copy(update={"evaluation": EvaluationConfig(labelled=(entry,))})
    with pytest.raises(LabelledQueryError, match="no query of"):
        query_sets(bench.store, config)


def test_finding_survives_being_stored(bench: Bench) -> None:
    measured = measure_relevance(bench.client, bench.right, bench.sets[:1], modes=["bm25"])
    table = relevance_rows(measured, evaluated_at=EPOCH)
    [finding] = regression(table, table, bench.config.evaluation)
    assert Finding.from_dict(json.loads(json.dumps(finding.to_dict()))) == finding
