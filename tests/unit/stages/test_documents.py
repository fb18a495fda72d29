"""The documents stage on real folders: a source that is not there, and one that changes while it is read."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rag_core.config import RagConfig
from rag_core.engine.base import Engine, ParseJob
from rag_core.engine.in_process import InProcessEngine
from rag_core.errors import ImplausibleShrinkError, SourceError
from rag_core.partitions import all_partition_keys
from rag_core.sources.base import SourceObject
from rag_core.stages.common import Progress, StageOutput, no_progress
from rag_core.stages.documents import documents_change
from rag_core.tables.change import StagedFile, commit
from rag_core.tables.delta import TableSlice
from rag_core.tables.store import Store


@dataclass
class World:
    """A source and a store."""

    folder: Path
    source: dict[str, Any]

    @property
    def config(self) -> RagConfig:
        return RagConfig.model_validate(
            {"store": {"root": str(self.folder / "store")}, "sources": [self.source], "buckets": 4}
        )

    @property
    def documents(self) -> TableSlice:
        return TableSlice.newest(Store.of(self.config.store), "documents", all_partition_keys(self.config))

    def run(self, *partitions: str, engine: Engine | None = None, **options: Any) -> StageOutput:
        current = self.documents.of(*partitions) if partitions else self.documents
        output = documents_change(current, self.config, engine or InProcessEngine(), **options)
        commit(output.change, run_id="run")
        return output

    def keys(self) -> set[str]:
        return set(self.documents.read(["object_key"])["object_key"].to_pylist())


def write(folder: Path, numbers: Sequence[int]) -> None:
    folder.mkdir(exist_ok=True)
    for number in numbers:
        (folder / f"{number}.md").write_text(f"# Page {number}\n\nIt has a text.\n")


@pytest.fixture
def forty(tmp_path: Path) -> World:
    """Forty pages, which the table has."""
    world = World(tmp_path, {"kind": "files", "name": "handbook", "root": str(tmp_path / "corpus")})
    write(tmp_path / "corpus", range(40))
    before = datetime.now(UTC)
    output = world.run()
    assert before <= output.listed_at["handbook"] <= datetime.now(UTC)
    return world


def test_a_source_that_lost_most_of_its_objects_is_not_believed(forty: World) -> None:
    corpus, version = forty.folder / "corpus", forty.documents.version
    for number in range(21):
        (corpus / f"{number}.md").unlink()
    write(corpus, range(100, 140))  # others do not make up for them
    with pytest.raises(ImplausibleShrinkError) as refused:
        forty.run()
    for words in ("'handbook'", "21 of 40", "50%", str(corpus), "rag run --source handbook --accept-deletions"):
        assert words in str(refused.value)
    for partition in all_partition_keys(forty.config):  # a part of the source shows only a part of what is gone
        with pytest.raises(ImplausibleShrinkError, match="21 of 40"):
            forty.run(partition)
    assert (forty.documents.version, len(forty.keys())) == (version, 40)
    output = forty.run(accept_deletions=True)
    assert sum(count.deleted for count in output.counts.values()) == 21
    assert forty.keys() == {f"{number}.md" for number in [*range(21, 40), *range(100, 140)]}


def test_half_of_a_source_may_go(forty: World) -> None:
    for number in range(20):
        (forty.folder / "corpus" / f"{number}.md").unlink()
    forty.run()
    assert len(forty.keys()) == 20


def test_nothing_is_parsed_of_a_source_that_is_not_believed(forty: World) -> None:
    corpus = forty.folder / "corpus"
    for number in range(40):
        (corpus / f"{number}.md").unlink()
    write(corpus, range(40, 80))
    with pytest.raises(ImplausibleShrinkError):
        forty.run(engine=Refusing())


def test_partitions_from_which_nothing_is_gone_are_done_all_the_same(forty: World) -> None:
    """What a run would not delete it need not doubt."""
    rows = forty.documents.read(["partition_key", "object_key"]).to_pylist()
    kept = rows[0]["partition_key"]
    for row in rows:
        if row["partition_key"] != kept:
            (forty.folder / "corpus" / row["object_key"]).unlink()
    assert forty.run(kept).counts[kept].deleted == 0


def test_a_folder_that_is_missing_is_no_empty_one(forty: World) -> None:
    (forty.folder / "corpus").rename(forty.folder / "away")
    with pytest.raises(SourceError):
        forty.run(accept_deletions=True)
    assert len(forty.keys()) == 40


class Refusing:
    """An engine that must not be asked."""

    def parse(self, items: Sequence[SourceObject], job: ParseJob, *, on_progress: Progress = no_progress) -> Any:
        raise AssertionError("nothing may be parsed")

    chunk = parse


class Meddling:
    """Does something to the source before each of the first tries, as other processes do, and then parses."""

    def __init__(self, *meddle: Any) -> None:
        self.meddle = list(meddle)
        self.parsed: list[list[str]] = []

    def parse(
        self, items: Sequence[SourceObject], job: ParseJob, *, on_progress: Progress = no_progress
    ) -> tuple[StagedFile, ...]:
        if self.meddle:
            self.meddle.pop(0)()
        self.parsed.append([item.key for item in items])
        return InProcessEngine().parse(items, job, on_progress=on_progress)

    chunk = None


def test_a_record_that_moved_while_it_was_read_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    lines = [f'{{"_id": "{number}", "text": "record {number}"}}\n' for number in range(5)]
    path.write_text("".join(lines))
    world = World(tmp_path, {"kind": "jsonl", "name": "records", "root": str(path)})
    moved = ['{"_id": "new", "text": "before all others"}\n', *lines]
    engine = Meddling(lambda: path.write_text("".join(moved)))
    world.run(engine=engine)
    # The new record is of a later listing; those that were listed are there, wherever they are now.
    assert world.keys() == {f"records.jsonl#{number}" for number in range(5)}
    assert len(engine.parsed) == 2


def test_an_object_that_is_gone_by_the_time_it_is_read_is_left_out(tmp_path: Path) -> None:
    world = World(tmp_path, {"kind": "files", "name": "handbook", "root": str(tmp_path / "corpus")})
    write(tmp_path / "corpus", range(3))
    engine = Meddling((tmp_path / "corpus" / "1.md").unlink)
    world.run(engine=engine)
    assert (world.keys(), len(engine.parsed)) == ({"0.md", "2.md"}, 1)


def test_a_record_that_moves_all_the_time_does_not_keep_the_run(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    line = '{"_id": "1", "text": "record"}\n'
    path.write_text(line)
    world = World(tmp_path, {"kind": "jsonl", "name": "records", "root": str(path)})
    engine = Meddling(*[lambda blanks=n: path.write_text("\n" * blanks + line) for n in range(1, 9)])
    world.run(engine=engine)
    assert (world.keys(), len(engine.parsed)) == (set(), 3)
