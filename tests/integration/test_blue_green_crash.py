"""A rebuilding killed with SIGKILL anywhere is resumed to the same end, or abandoned with nothing left behind."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rag_core.index.client import connect
from rag_core.stages.publication import generations
from rag_core.stages.retention import abandon
from rag_core.tables.delta import TableSlice
from tests.integration.blue_green_helpers import (
    Records,
    collections,
    configure,
    found,
    held,
    lanes,
    publications,
    served,
    target,
    text_of,
)
from tests.integration.embedding_server import WORDS_DIM, serving, words
from tests.integration.pipeline_helpers import Platform

pytestmark = [pytest.mark.milvus, pytest.mark.slow]

# The commits of the tables before these are those of any run: test_crash has them. Two in a row: what takes up what the
# first left is killed as well.
BEFORE_THE_ALIAS = (
    ("embeddings.before_commit", "index.mid_upsert"),
    ("index_verdict.before_commit", "index_verdict.after_commit"),
    ("published_index.before_alias",),
)
AFTER_THE_ALIAS = (("published_index.after_alias", "retention.after_drop"), ("retention.after_index_partitions",))
SIZES = (100, 60, 30)  # three: the served index and the one before it keep their chunks


class Rebuilding:
    """A store with three publications, each of another model and chunk length, and the next one to come."""

    def __init__(self, root: Path, address: str) -> None:
        self.records = Records(root / "docs.jsonl", 8)
        self._address = address
        self.number = 0
        self.clean: dict[int, dict[str, str]] = {}
        self.platform = Platform(root / "platform", [self.records.source], self._settings())
        for size in SIZES:
            self.rebuild()
            self.clean[size] = held(self.platform, target(self.platform))
            if size != SIZES[-1]:
                self.ask_for_another()

    def _settings(self) -> dict[str, Any]:
        model = {"backend": "openai", "model": "words", "dim": WORDS_DIM, "max_tokens": 256, "base_url": self._address}
        return {
            "evaluation": {"samples": 10, "known_items": 10, "max_latency_ratio": 50},
            "embedding": {**model, "revision": str(self.number)},
            "chunking": {"max_tokens": SIZES[self.number % len(SIZES)]},
            "index": {"write_batch": 5, "lite_idle_s": 600},
        }

    def ask_for_another(self) -> None:
        self.number += 1
        self.platform = configure(self.platform, self._settings())

    def rebuild(self) -> None:
        self.platform.run(rebuild=True)

    def crash(self, point: str, *command: str) -> None:
        done = self.platform.rag(*(command or ("run", "--rebuild")), RAG_CRASH_AT=point)
        assert done.returncode == -signal.SIGKILL, f"{point} was not reached: {done.returncode}\n{done.stderr}"

    def content(self, ago: int) -> dict[str, str]:
        """Return what the collection must hold that was asked for `ago` changes of rag.yaml ago."""
        return self.clean[SIZES[(self.number - ago) % len(SIZES)]]

    def state(self) -> tuple[Any, ...]:
        """Return all that a candidate that was never there must not change."""
        manifest = served(self.platform)
        return manifest, held(self.platform, manifest.collection), collections(self.platform), lanes(self.platform)

    def assert_published(self, old: str) -> None:
        new = target(self.platform)
        assert served(self.platform).collection == new
        # Retention that was cut off is done by the next run; it moves the tables' versions, which the manifest names.
        assert publications(self.platform, new) <= 2
        assert held(self.platform, new) == self.content(0)
        assert held(self.platform, old) == self.content(1)
        assert collections(self.platform) == lanes(self.platform)["index_partitions"] == {new, old}
        assert {name: len(values) for name, values in lanes(self.platform).items()} == dict.fromkeys(
            ("chunks", "embeddings", "index_partitions", "term_statistics"), 2
        )
        vectors = TableSlice.newest(self.platform.store, "embeddings").read(["chunk_id"]).num_rows
        assert vectors == len(self.content(0)) + len(self.content(1))
        work = self.platform.root / "data" / "work"
        assert not [path for name in ("index", "embedding") for path in (work / name).rglob("*") if path.is_file()]
        assert found(self.platform, text_of(4), "dense")[0] == "doc04"


@pytest.fixture(scope="module")
def rebuilding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rebuilding]:
    with serving(words) as address:
        prepared = Rebuilding(tmp_path_factory.mktemp("rebuilding"), address)
        yield prepared
        prepared.platform.stop()


@pytest.mark.parametrize("points", [*BEFORE_THE_ALIAS, *AFTER_THE_ALIAS], ids=" then ".join)
def test_killed_rebuilding_is_resumed(rebuilding: Rebuilding, points: tuple[str, ...]) -> None:
    old = served(rebuilding.platform).collection
    rebuilding.ask_for_another()
    for point in points:
        rebuilding.crash(point)
        if points in BEFORE_THE_ALIAS:
            with connect(rebuilding.platform.config.index, rebuilding.platform.store) as client:
                assert client.alias_target("rag") == old
            assert found(rebuilding.platform, text_of(4), "dense")[0] == "doc04"
    rebuilding.rebuild()
    rebuilding.assert_published(old)


@pytest.mark.parametrize("point", ["embeddings.before_commit", "index.mid_upsert", "published_index.before_alias"])
def test_killed_rebuilding_is_abandoned(rebuilding: Rebuilding, point: str) -> None:
    before = rebuilding.state()
    rebuilding.ask_for_another()
    rebuilding.crash(point)
    platform = rebuilding.platform
    candidate = target(platform)
    with connect(platform.config.index, platform.store) as client:
        known = generations(platform.store, platform.config)
        removed = abandon(platform.store, known, client, run_id="abandon")
        assert removed == ([candidate] if point.startswith(("index", "published")) else [])
        assert abandon(platform.store, known, client, run_id="abandon") == []
    # The manifest of what is served may have been brought up to date before the crash.
    assert rebuilding.state()[1:] == before[1:]
    assert served(platform).collection == before[0].collection
    assert not (platform.root / "data" / "work" / "index" / candidate).exists()
    rebuilding.number -= 1
    rebuilding.platform = configure(platform, rebuilding._settings())
    assert rebuilding.platform.run()["embedded"] == 0
    assert rebuilding.state()[1:] == before[1:]
    assert served(platform).collection == before[0].collection


@pytest.mark.parametrize("point", ["rollback.before_manifest", "rollback.before_alias"])
def test_killed_rollback_is_brought_to_its_end(rebuilding: Rebuilding, point: str) -> None:
    platform, new = rebuilding.platform, served(rebuilding.platform).collection
    (old,) = collections(platform) - {new}
    rebuilding.crash(point, "rollback")
    assert found(platform, text_of(4), "dense")[0] == "doc04"
    done = platform.rag("rollback")
    assert done.returncode == 0, done.stderr
    assert (served(platform).collection, served(platform).rolled_back_from) == (old, new)
    assert held(platform, old) == rebuilding.content(1)
    assert platform.rag("publish", "--again").returncode == 0
    assert served(platform).collection == new
