"""A run killed with SIGKILL anywhere, and run again, ends where a run that was never killed ends."""

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from rag_core.embedding.resident.files import resident_files
from rag_core.stages.publication import latest_manifest
from rag_core.stages.receipts import read_receipts
from tests.integration.embedding_server import WORDS_DIM, serving, words
from tests.integration.pipeline_helpers import Platform

pytestmark = [pytest.mark.milvus, pytest.mark.slow]

# In the order in which a run comes by them. Two in a row: the run that takes up what the first left is killed as well.
POINTS = (
    ("documents.before_commit", "index.before_upsert"),
    ("documents.after_commit", "index.mid_upsert"),
    ("chunks.before_commit", "index.after_upsert"),
    ("embeddings.before_commit", "index.after_flush"),
    ("index.after_verify", "deletions.after_note"),
    ("index.mid_delete", "index.after_delete"),
    ("deletions.before_receipts", "deletions.after_receipts"),
    ("index_partitions.before_commit", "index_partitions.after_commit"),
    ("published_index.before_alias",),
)
OF_THE_WORKER = ("embeddings.worker.before_append", "embeddings.worker.after_append")


def settings(address: str) -> dict[str, Any]:
    """Return settings with a model of an endpoint: each worker that dies has a successor, which loads no model."""
    model = {"backend": "openai", "model": "words", "dim": WORDS_DIM, "max_tokens": 256, "base_url": address}
    return {
        "embedding": model,
        "index": {"write_batch": 5, "lite_idle_s": 600},
        "evaluation": {
            "samples": 10,
            "known_items": 10,
            "reevaluate_share": 1.0,
        },  # the verdict is not the subject here
    }


def write_state(folder: Path, state: str) -> None:
    """Write one of two states of the corpus: some documents are the same, some differ, some exist in one only."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number in range(14):
        if number % 7 == {"A": 5, "B": 6}[state]:
            continue
        edition = state if number % 3 == 0 else ""
        sections = [
            f"## Section {part}\n\n" + f"Pump {number} {edition} valve {part} is opened by the operator. " * 8
            for part in range(3)
        ]
        path = folder / f"doc{number:02d}.md"
        path.write_text(f"# Manual {number} {edition}\n\n" + "\n\n".join(sections))
        # The time of a file is part of its row; the two states must not depend on when they were written.
        stamp = 1_700_000_000 + number + (1_000 if edition == "B" else 0)
        os.utime(path, (stamp, stamp))


class Crashing:
    """A store whose runs are killed, and what clean runs of the two states look like."""

    def __init__(self, root: Path, address: str) -> None:
        self.corpus = root / "corpus"
        sources = [{"name": "manuals", "kind": "files", "root": str(self.corpus)}]
        self.platform = Platform(root / "crashed", sources, settings(address))
        self.clean = {}
        for state in "AB":
            write_state(self.corpus, state)
            clean = Platform(root / f"clean{state}", sources, settings(address))
            clean.run()
            self.clean[state] = (clean.tables(), clean.vectors(), clean.milvus())
            clean.stop()
        self.state = "A"
        self.removed = 0

    def change(self) -> None:
        """Move the corpus to its other state."""
        # Two documents exist in one state only; to the empty store nothing was removed yet.
        self.removed += 2 if latest_manifest(self.platform.store) else 0
        self.state = "B" if self.state == "A" else "A"
        write_state(self.corpus, self.state)

    def assert_like_clean_run(self) -> None:
        tables, vectors, (count, listed) = self.clean[self.state]
        assert self.platform.tables() == tables
        assert self.platform.vectors() == vectors
        assert self.platform.milvus() == (count, listed)
        receipts = read_receipts(self.platform.store)
        assert len(set(receipts["receipt_id"].to_pylist())) == receipts.num_rows == self.removed
        assert pc.all(receipts["unfindable_by_vector"]).as_py() in (True, None)
        assert count == len(listed) == len(set(listed)) == len(tables["index_partitions"])


@pytest.fixture(scope="module")
def crashing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crashing]:
    with serving(words) as address:
        prepared = Crashing(tmp_path_factory.mktemp("crash"), address)
        yield prepared
        prepared.platform.stop()


@pytest.mark.parametrize("points", POINTS, ids=" then ".join)
def test_killed_at(crashing: Crashing, points: tuple[str, ...]) -> None:
    crashing.change()
    for point in points:
        crashed = crashing.platform.rag("run", "--json", RAG_CRASH_AT=point)
        assert crashed.returncode == -signal.SIGKILL, f"{point} was not reached: {crashed.returncode}\n{crashed.stderr}"
    crashing.platform.run()
    crashing.assert_like_clean_run()


@pytest.mark.parametrize("point", OF_THE_WORKER)
def test_worker_killed_at(crashing: Crashing, point: str) -> None:
    """Only the worker dies. The run tries again: in vain where the worker dies before its commit, and with nothing left
    to do where it dies after it.
    """
    crashing.change()
    shutil.rmtree(crashing.platform.root / "data" / "tables" / "vectors", ignore_errors=True)
    crashed = crashing.platform.rag("run", "--json", RAG_CRASH_AT=point)
    assert crashed.returncode == (1 if point.endswith("before_append") else 0), crashed.stderr
    log = resident_files(crashing.platform.store).log
    assert f"killed at {point}" in log.read_text(), f"{point} was not reached"
    crashing.platform.run()
    crashing.assert_like_clean_run()


def test_killed_at_random_times(crashing: Crashing) -> None:
    rng = random.Random(20261124)
    for _ in range(2):
        crashing.change()
        run = crashing.platform.start("run")
        time.sleep(rng.uniform(0.5, 6.0))
        run.kill()
        run.join()
        crashing.platform.run()
        crashing.assert_like_clean_run()


def test_second_run_does_nothing(crashing: Crashing) -> None:
    figures = crashing.platform.run()
    work = ("parsed", "rejected", "chunks", "embedded", "reused", "upserted", "deleted", "repaired", "commits")
    assert {name: figures[name] for name in work} == dict.fromkeys(work, 0)
