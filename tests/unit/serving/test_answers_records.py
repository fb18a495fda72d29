"""Records: readable at once by those who asked, durable soon, blamed on a run, and never lost to a store that fails."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest

from rag_core.config_serving import ServingConfig
from rag_core.retrieval.served import ServedIndex
from rag_core.retrieval.visible import AccessMap
from rag_core.stages.publication import Manifest
from rag_core.tables.change import TableChange, commit, stage
from rag_core.tables.delta import TableSlice, row_schema
from rag_core.tables.log import append_rows
from rag_core.tables.store import Store
from serving.answers import records as records_module
from serving.answers.model import AnswerResult, Citation, CitedSentence
from serving.answers.records import Records
from serving.answers.rows import cited_docs
from serving.caller import Caller
from serving.errors import ApiError
from serving.index.snapshot import Snapshot
from serving.observability.metrics import Metrics
from tests.answers_support import MANIFEST

ANNA, BERT, ROOT = Caller("user:anna"), Caller("user:bert"), Caller("local", sees_all=True)
AT = datetime(2026, 5, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Index:
    """What records read of a served index."""

    manifest: Manifest
    collection: str
    model_fingerprint: str


SNAPSHOT = Snapshot(cast(ServedIndex, Index(MANIFEST, MANIFEST.collection, "model-1")), AccessMap(), {}, 0.0)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def records_of(store: Store, *, keep_answers: bool = True) -> Records:
    return Records(store, ServingConfig(keep_answers=keep_answers), Metrics())


def answer_of(*doc_ids: str) -> AnswerResult:
    citations = tuple(
        Citation(number, f"{doc}-chunk", doc, f"file:///{doc}", None, "s", None, ("H",), (3, 9), "quoted", "hash")
        for number, doc in enumerate(doc_ids, start=1)
    )
    sentence = CitedSentence("It is so. [1]", tuple(one.number for one in citations), supported=True, support=0.9)
    return AnswerResult(sentence.text, (sentence,), citations, "generated", "", "some-model", 10, 5)


def keep(records: Records, answer_id: str, *doc_ids: str, caller: Caller = ANNA) -> None:
    records.keep(
        answer_of(*doc_ids), answer_id=answer_id, asked_at=AT, caller=caller, question="Is it so?", snapshot=SNAPSHOT,
        version="v1", seconds=0.5,
    )  # fmt: skip


def index_documents(store: Store, run_id: str, rows: Sequence[tuple[str, str]]) -> None:
    """Write ledger rows (document, chunk) as a run does, in place of what was there of these documents."""
    base = TableSlice.newest(store, "index_partitions", ("s__00",), lane=MANIFEST.collection)
    old = set(base.read(["doc_id"])["doc_id"].to_pylist())
    values = [
        {
            "partition_key": "s__00", "chunk_id": chunk, "doc_id": doc, "text_hash": "", "row_hash": "",
            "model_fingerprint": "m", "indexed_at": datetime.now(UTC),
        }
        for doc, chunk in rows
        if chunk
    ]  # fmt: skip
    batches = [pa.RecordBatch.from_pylist(values, schema=row_schema("index_partitions"))] if values else []
    files = stage(store, "index_partitions", batches, MANIFEST.collection)
    replaced = tuple(sorted(old & {doc for doc, _ in rows}))
    commit(TableChange(base, "doc_id", files=files, replaced=replaced), run_id=run_id)


def stored(store: Store, table: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = TableSlice.newest(store, table).read().to_pylist()
    return rows


@pytest.mark.anyio
async def test_an_answer_is_readable_at_once_by_its_asker_alone(store: Store) -> None:
    records = records_of(store)
    keep(records, "a1", "d1")
    for _ in ("in memory", "in the store"):
        replay = await records.answer("a1", ANNA)
        assert replay is not None
        assert (replay["question"], replay["text"], replay["asked_at"]) == ("Is it so?", "It is so. [1]", AT)
        assert (replay["collection"], replay["index_version"], replay["embedding_model"]) == (
            "chunks_a",
            "v1",
            "model-1",
        )
        assert replay["sentences"][0]["support"] == 0.9
        assert replay["citations"][0]["span"] == [3, 9]
        assert cited_docs(replay) == ["d1"]
        assert await records.answer("a1", BERT) is None
        assert await records.answer("a1", ROOT) == replay
        assert await records.answer("a2", ANNA) is None
        assert await records.flush()
    keep(records, "a3", "d3")
    await records.flush()  # another file
    other = await records_of(store).answer("a1", ANNA)
    assert other == replay
    assert await records_of(store).answer("a2", ANNA) is None


@pytest.mark.anyio
async def test_citations_say_which_run_wrote_them_and_what_became_of_them(store: Store) -> None:
    index_documents(store, "run-1", [("d1", "d1-chunk"), ("d2", "d2-chunk")])
    index_documents(store, "run-2", [("d3", "d3-chunk")])
    append_rows(store, "published_index", [asdict(MANIFEST)])
    records = records_of(store)
    keep(records, "a1", "d1", "d2", "d3", "d4")
    runs = ["run-1", "run-1", "run-2", None]

    async def cited() -> tuple[list[Any], list[Any]]:
        replay = await records.answer("a1", ANNA)
        assert replay is not None
        return [one["run_id"] for one in replay["citations"]], [one["now"] for one in replay["citations"]]

    assert await cited() == (runs, ["current", "current", "current", "gone"])
    await records.flush()
    index_documents(store, "run-3", [("d1", "d1-other"), ("d3", "")])
    assert await cited() == (runs, ["changed", "current", "gone", "gone"])
    append_rows(
        store, "published_index", [asdict(replace(MANIFEST, collection="chunks_b", published_at=datetime.now(UTC)))]
    )
    assert await cited() == (runs, ["gone"] * 4)


@pytest.mark.anyio
async def test_what_is_kept_is_in_the_store_when_the_records_stop(store: Store) -> None:
    records = records_of(store)
    await records.start()
    for number in range(5):
        keep(records, f"a{number}", "d1")
    records.asked("Is it so?", "hybrid")
    await records.stop()
    assert {row["answer_id"] for row in stored(store, "answers")} == {f"a{number}" for number in range(5)}
    assert [(row["question"], row["asked"]) for row in stored(store, "asked")] == [("Is it so?", 1)]


@pytest.mark.anyio
async def test_nothing_is_written_where_nothing_is_to_be_kept(store: Store, tmp_path: Path) -> None:
    records = records_of(store, keep_answers=False)
    await records.start()
    keep(records, "a1", "d1")
    records.asked("Is it so?", "hybrid")
    await records.stop()
    assert await records.frequent(5) == []
    replay = await records.answer("a1", ANNA)
    assert replay is not None
    assert await records.answer("a1", BERT) is None
    with pytest.raises(ApiError, match="409"):
        await records.feedback("a1", ANNA, rating="up")
    for table in ("answers", "asked", "feedback"):
        assert not (tmp_path / "tables" / table).exists()


@pytest.mark.anyio
async def test_feedback_is_in_the_store_when_it_is_confirmed(store: Store) -> None:
    records = records_of(store)
    keep(records, "a1", "d1")
    feedback_id = await records.feedback("a1", ANNA, rating="down", comment="No\ud800.", chunk_ids=["d1-chunk"])
    (row,) = stored(store, "feedback")
    assert (row["feedback_id"], row["answer_id"], row["caller"]) == (feedback_id, "a1", "user:anna")
    assert (row["rating"], row["chunk_ids"]) == ("down", ["d1-chunk"])
    assert await records.feedback("a1", BERT, rating="up") is None
    assert await records.feedback("a9", ANNA, rating="up") is None
    with pytest.raises(ApiError) as refused:
        await records.feedback("a1", ANNA, rating="up", chunk_ids=["d2-chunk"])
    assert (refused.value.status, refused.value.param) == (400, "chunk_ids")
    assert len(stored(store, "feedback")) == 1


@pytest.mark.anyio
async def test_a_store_that_fails_loses_nothing_and_tells_callers(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = records_of(store)
    tables = tmp_path / "tables"
    tables.mkdir()
    for table in ("answers", "feedback", "asked"):
        (tables / table).write_text("in the way")
    keep(records, "a1", "d1")
    records.asked("Is it so?", "hybrid")
    assert not await records.flush(counts=True)
    assert not await records.flush(counts=True)
    assert await records.answer("a1", ANNA) is not None
    with pytest.raises(ApiError, match="503"):
        await records.feedback("a1", ANNA, rating="up")
    assert await records.frequent(3) == [("Is it so?", "hybrid")]
    assert "Is it so?" not in caplog.text
    for table in ("answers", "feedback", "asked"):
        (tables / table).unlink()
    assert await records.flush(counts=True)
    assert [row["answer_id"] for row in stored(store, "answers")] == ["a1"]
    assert [row["asked"] for row in stored(store, "asked")] == [1]


@pytest.mark.anyio
async def test_memory_is_bounded_and_what_is_lost_is_said(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(records_module, "_PENDING", 3)
    records = records_of(store)
    for number in range(5):
        keep(records, f"a{number}", "d1")
    with caplog.at_level(logging.ERROR):
        assert await records.flush()
    assert {row["answer_id"] for row in stored(store, "answers")} == {"a2", "a3", "a4"}
    assert "2 answers were lost" in caplog.text


@pytest.mark.anyio
async def test_frequent_questions_are_counted_across_time_and_case(store: Store) -> None:
    records = records_of(store)
    for question in ("How?", "how?", "Why?", "HOW?  "):
        records.asked(question, "hybrid")
    await records.flush(counts=True)
    for question in ("Why?", "why?", "Why?", "Who?"):
        records.asked(question, "hybrid")
    records.asked("How?", "dense")
    found = await records.frequent(2)
    assert [(question.casefold(), mode) for question, mode in found] == [("why?", "hybrid"), ("how?", "hybrid")]
    assert len(await records.frequent(10)) == 4
    assert await records.frequent(0) == []


@pytest.mark.anyio
async def test_halves_of_characters_do_not_stop_the_records(store: Store) -> None:
    records = records_of(store)
    broken = replace(answer_of("d1"), text="half \ud83d")
    records.keep(
        broken, answer_id="a1", asked_at=AT, caller=ANNA, question="\udc00?", snapshot=SNAPSHOT, version="v", seconds=1
    )
    records.asked("\udc00?", "bm25")
    assert await records.flush(counts=True)
    assert len(stored(store, "answers")) == 1
