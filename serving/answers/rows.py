"""An answer as a row of the table `answers`, and that row as a replay."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from rag_core.tables.delta import TableSlice, in_set
from rag_core.tables.store import Store
from serving.answers.model import AnswerResult
from serving.caller import Caller
from serving.index.snapshot import Snapshot

Row = dict[str, Any]


def answer_row(
    answer: AnswerResult,
    *,
    answer_id: str,
    asked_at: datetime,
    caller: Caller,
    question: str,
    snapshot: Snapshot,
    version: str,
    seconds: float,
) -> Row:
    """Make the row of an answer; the runs of its citations are not known yet."""
    return {
        "answer_id": answer_id,
        "asked_at": asked_at,
        "caller": caller.id,
        "question": storable(question),
        "text": storable(answer.text),
        "kind": answer.kind,
        "degraded": answer.degraded,
        "model": answer.model,
        "collection": snapshot.index.collection,
        "index_version": version,
        "embedding_model": snapshot.index.model_fingerprint,
        "sentences": _json([asdict(sentence) for sentence in answer.sentences]),
        "citations": _json([asdict(citation) for citation in answer.citations]),
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "seconds": seconds,
    }


def cited_of(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the citations of a row."""
    return list(json.loads(row["citations"]))


def with_runs(row: Row, runs: Mapping[str, str | None]) -> Row:
    """Return the row with the Dagster run that wrote each cited chunk into the index."""
    cited = [{**citation, "run_id": runs.get(citation["chunk_id"])} for citation in cited_of(row)]
    return {**row, "citations": _json(cited)}


def replay_of(row: Row, now: Mapping[str, str]) -> dict[str, Any]:
    """Return a row for the API.

    Args:
        row: With runs.
        now: Chunk id -> what became of it.
    """
    cited = [{**citation, "now": now[citation["chunk_id"]]} for citation in cited_of(row)]
    return {**row, "sentences": json.loads(row["sentences"]), "citations": cited}


def cited_docs(replay: Mapping[str, Any]) -> list[str]:
    """Return the documents that a replayed answer cites, each once: who may not see all of them may not see it."""
    return list(dict.fromkeys(citation["doc_id"] for citation in replay["citations"]))


def states_of(store: Store, collection: str, cited: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Say what became of cited chunks, by the ledger of a collection.

    Args:
        store: Holds the ledger.
        collection: What is served now.
        cited: Citations.

    Returns:
        Chunk id -> `current` (it is served as it was), `changed` (its document is served, with other chunks in its
        place) or `gone` (its document is not served).
    """
    if not cited:
        return {}
    ledger = TableSlice.newest(store, "index_partitions", lane=collection)
    rows = ledger.read(["chunk_id", "doc_id"], in_set("doc_id", [citation["doc_id"] for citation in cited]))
    chunks, documents = set(rows["chunk_id"].to_pylist()), set(rows["doc_id"].to_pylist())
    return {
        one["chunk_id"]: "current" if one["chunk_id"] in chunks else "changed" if one["doc_id"] in documents else "gone"
        for one in cited
    }


def storable(text: str) -> str:
    """Return a text without halves of characters, which JSON may hold and tables may not."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _json(values: Sequence[Mapping[str, Any]]) -> str:
    return storable(json.dumps(values, ensure_ascii=False))
