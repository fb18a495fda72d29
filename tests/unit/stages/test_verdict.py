"""How long a verdict holds."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rag_core.generation import Generation
from rag_core.stages.publication import Generations
from rag_core.stages.verdict import (
    Verdict,
    append_verdict,
    changed_share,
    judged_versions,
    newest_verdict,
    settings_digest,
    why_judge,
)
from rag_core.tables.delta import ensure_table
from rag_core.tables.store import Store
from tests.unit.stages.generation_rows import START, chunks, documents, generation_of, ledger, put

NAMES = [f"doc{n:02d}" for n in range(20)]
JUDGED = START + timedelta(hours=1)


class Judged:
    """A complete collection of twenty chunks, and a verdict on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.target = generation_of(folder)
        self.store = Store.of(self.target.config.store)
        self.add(NAMES)

    def add(self, names: list[str], *, edition: str = "1", hours: int = 0) -> None:
        put(self.store, "documents", documents(names, edition=edition))
        put(self.store, "chunks", chunks(names, edition=edition), self.target.chunk_lane)
        rows = ledger(self.target, names, edition=edition, indexed_at=START + timedelta(hours=hours))
        put(self.store, "index_partitions", rows, self.target.collection)

    def judge(self, *, passed: bool = True, against: str = "", **measures: Any) -> Verdict:
        reasons = () if passed else ("because",)
        verdict = Verdict(
            "v", self.target.collection, against, JUDGED, "r", passed, reasons, {"ef": 64},
            {"settings": settings_digest(self.target), **measures}, judged_versions(self.store), len(NAMES),
        )  # fmt: skip
        append_verdict(self.store, verdict)
        return verdict

    def why(self, target: Generation | None = None, served: Generation | None = None) -> str:
        return why_judge(self.store, Generations(target or self.target, served=served))


@pytest.fixture
def judged(tmp_path: Path) -> Judged:
    return Judged(tmp_path)


def test_row_round_trip(judged: Judged) -> None:
    assert newest_verdict(judged.store, judged.target.collection) is None
    verdict = judged.judge()
    assert newest_verdict(judged.store, judged.target.collection) == verdict
    assert newest_verdict(judged.store, "another") is None


def test_never_judged_and_then_not_again(judged: Judged) -> None:
    assert judged.why() == "it was never judged"
    judged.judge()
    assert judged.why() == ""


def test_incomplete_is_not_judged(judged: Judged) -> None:
    put(judged.store, "documents", documents(["uncut"]))
    assert judged.why() == ""


@pytest.mark.parametrize(("more", "again"), [(1, False), (2, True)])
def test_judged_again_above_the_share(judged: Judged, more: int, again: bool) -> None:
    judged.judge()
    judged.add([f"more{n}" for n in range(more)], hours=2)  # of 21 or 22 chunks; 5 % is accepted
    assert ("of its chunks changed" in judged.why()) is again


def test_refused_is_looked_at_again_after_any_change(judged: Judged) -> None:
    judged.judge(passed=False)
    assert judged.why() == ""
    judged.add(["more"], hours=2)
    assert judged.why() == "it was refused and has changed since"


@pytest.mark.parametrize(
    "measures", [{"held": ["chunks/s__00"]}, {"entropy": {"unclean": [{"partition_key": "s__00"}]}}]
)
def test_what_may_be_mended_without_a_change_of_the_ledger_is_looked_at_again(
    judged: Judged, measures: dict[str, Any]
) -> None:
    judged.judge(passed=False, **measures)
    assert "found something wrong" in judged.why()
    judged.judge(passed=False, held=[], entropy={"unclean": []})
    assert judged.why() == ""


def test_a_person_may_ask_again_after_a_refusal(judged: Judged) -> None:
    judged.judge()
    assert why_judge(judged.store, Generations(judged.target, served=None), asked=True) == ""
    judged.judge(passed=False)
    assert "asked for again" in why_judge(judged.store, Generations(judged.target, served=None), asked=True)


def test_other_floors_search_parameters_or_rival(judged: Judged) -> None:
    other = generation_of(judged.folder, index={"index_type": "HNSW"})
    judged.judge(against=other.collection)
    assert judged.why(served=other) == ""
    assert judged.why() == ""
    rival = replace(other, collection="rag_000000000000")
    assert "rag_000000000000 is served now" in judged.why(served=rival)
    stricter = generation_of(judged.folder, evaluation={"min_ann_recall": 0.99})
    assert judged.why(stricter) == "what it is measured by changed"
    params = generation_of(judged.folder, index={"search_params": {"nprobe": 3}})
    assert judged.why(params) == "what it is measured by changed"


def test_a_collection_built_again_is_judged_again(judged: Judged) -> None:
    """The same rows with other vectors: the rows alone cannot tell."""
    judged.judge()
    ensure_table(judged.store, "index_partitions").delete(f"collection = '{judged.target.collection}'")
    rows = ledger(judged.target, NAMES, indexed_at=JUDGED + timedelta(hours=1))
    put(judged.store, "index_partitions", rows, judged.target.collection)
    assert "all of it was written since" in judged.why()


def test_changed_share_counts_added_changed_and_removed_once(judged: Judged) -> None:
    since = ensure_table(judged.store, "index_partitions").version()
    share = lambda: changed_share(judged.store, judged.target, since)  # noqa: E731
    assert share() == 0.0
    put(judged.store, "index_partitions", ledger(judged.target, NAMES[:1]), "another collection")
    assert share() == 0.0
    table = ensure_table(judged.store, "index_partitions")
    table.delete(f"collection = '{judged.target.collection}' AND doc_id IN ('doc00', 'doc01')")
    assert share() == pytest.approx(2 / 18)
    put(judged.store, "index_partitions", ledger(judged.target, NAMES[:1], edition="2"), judged.target.collection)
    assert share() == pytest.approx(2 / 19)  # doc00 has another row, doc01 none
    assert changed_share(judged.store, judged.target, 99) == 1.0  # no such version any more
