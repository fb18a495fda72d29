"""What is out of date by partition, against a count row by row."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag_core import ids
from rag_core.config import RagConfig
from rag_core.embedding.cache import VectorCache
from rag_core.engine.chunkers import chunker_fingerprints
from rag_core.errors import ConfigError
from rag_core.generation import configured
from rag_core.parsing.settings import ParseSettings, parser_fingerprint
from rag_core.partitions import all_partition_keys
from rag_core.sources.factory import open_source
from rag_core.stages.plan import make_plan
from rag_core.stages.staleness import Stale, stale_partitions, survey
from rag_core.stages.work import total
from rag_core.tables.store import Store
from tests.unit.stages.generation_rows import put

BUCKETS = 4

_STATE = st.fixed_dictionaries(
    {
        "object": st.sampled_from(["new", "changed", "gone", "same"]),
        "chunk": st.sampled_from(["none", "current", "old text", "old chunker"]),
        "vector": st.sampled_from(["none", "current", "old text", "old model"]),
        "row": st.sampled_from(["none", "current", "old"]),
        "cached": st.booleans(),
        "text": st.sampled_from(["one", "two", "own"]),
    }
)


class World:
    """A source of files and tables that follow it more or less; rows are kept in lists as well, to be counted."""

    def __init__(self, root: Path, states: list[dict[str, Any]]) -> None:
        self.files = root / "files"
        self.files.mkdir()
        self.config = RagConfig.model_validate(
            {
                "store": {"root": str(root / "data")},
                "buckets": BUCKETS,
                "sources": [{"name": "notes", "kind": "files", "root": str(self.files)}],
            }
        )
        self.store, self.generation = Store.of(self.config.store), configured(self.config)
        self.states = {f"doc{number:02d}.md": state for number, state in enumerate(states)}
        self.rows: dict[str, list[dict[str, Any]]] = {
            name: [] for name in ("documents", "chunks", "embeddings", "index_partitions")
        }
        for name in self.states:
            (self.files / name).write_text(name)
        self.listed = {item.key: item for item in open_source(self.config.sources[0]).list()}
        for name, state in self.states.items():
            self._add(name, state)
        lanes = {
            "documents": "",
            "chunks": self.generation.chunk_lane,
            "embeddings": self.generation.embedding_lane,
            "index_partitions": self.generation.collection,
        }
        for table, rows in self.rows.items():
            put(self.store, table, rows, lanes[table])
        known = sorted({self.text_of(name) for name, state in self.states.items() if state["cached"]})
        vectors = np.ones((len(known), 4), np.float32) / 2
        VectorCache(self.store).append(self.generation.spec.fingerprint, known, vectors)

    def text_of(self, name: str) -> str:
        text = self.states[name]["text"]
        return ids.text_hash(name if text == "own" else text)

    def partition_of(self, name: str) -> str:
        return ids.partition_key("notes", ids.bucket_of(ids.doc_id("notes", name), BUCKETS), BUCKETS)

    def _add(self, name: str, state: dict[str, Any]) -> None:
        doc_id = ids.doc_id("notes", name)
        key = {"partition_key": self.partition_of(name), "doc_id": doc_id}
        if state["object"] == "gone":
            (self.files / name).unlink()
        if state["object"] != "new":
            parser = parser_fingerprint(ParseSettings.of(self.config.parsing, self.config.sources[0]))
            self.rows["documents"].append(
                key
                | {
                    "source": "notes", "object_key": name, "object_id": doc_id, "status": "ok", "text": "some text",
                    "doc_hash": name, "parser_fingerprint": parser,
                    "object_fingerprint": "other" if state["object"] == "changed" else self.listed[name].fingerprint,
                }
            )  # fmt: skip
        text, chunk_id = self.text_of(name), f"{name}-0"
        fingerprint = chunker_fingerprints(self.config)["notes"]
        if state["chunk"] != "none":
            self.rows["chunks"].append(
                key
                | {
                    "chunk_id": chunk_id, "text_hash": text, "row_hash": f"{text}@", "source": "notes",
                    "doc_hash": "before" if state["chunk"] == "old text" else name,
                    "chunker_fingerprint": "before" if state["chunk"] == "old chunker" else fingerprint,
                }
            )  # fmt: skip
        if state["vector"] != "none":
            model = "before" if state["vector"] == "old model" else self.generation.spec.fingerprint
            own = "before" if state["vector"] == "old text" else text
            self.rows["embeddings"].append(key | {"chunk_id": chunk_id, "text_hash": own, "model_fingerprint": model})
        if state["row"] != "none":
            row_hash = "before" if state["row"] == "old" else f"{text}@"
            model = self.generation.spec.fingerprint
            self.rows["index_partitions"].append(
                key | {"chunk_id": chunk_id, "row_hash": row_hash, "model_fingerprint": model}
            )

    def count(self, key: str, stage: str | None) -> dict[str, int]:
        """Count row by row what is to be done for a partition; every document has one chunk."""
        found: Counter[str] = Counter()
        for name, state in self.states.items():
            if self.partition_of(name) != key:
                continue
            found["new"] += state["object"] == "new" and stage in (None, "documents")
            found["changed"] += state["object"] == "changed" and stage in (None, "documents")
            found["deleted"] += state["object"] == "gone" and stage in (None, "documents")
            stands = state["object"] == "same" if stage is None else state["object"] != "new"
            cut = stands and state["chunk"] == "current"
            if stage is None:
                found["documents_to_cut"] += state["object"] in ("new", "changed")
            if stage in (None, "chunks"):
                found["documents_to_cut"] += stands and not cut
                found["documents_to_drop"] += state["chunk"] != "none" and not cut
            embeds = cut if stage is None else state["chunk"] != "none"
            if stage in (None, "embeddings"):
                found["chunks_waiting"] += embeds and state["vector"] != "current"
                found["vectors_to_drop"] += state["vector"] != "none" and not (embeds and state["vector"] == "current")
            writes = cut if stage is None else state["chunk"] != "none" and state["vector"] == "current"
            if stage in (None, "index_partitions"):
                found["rows_to_write"] += writes and state["row"] != "current"
                found["rows_to_delete"] += not writes and state["row"] != "none"
        return {name: count for name, count in found.items() if count}

    def texts(self, stage: str | None) -> tuple[set[str], set[str]]:
        """Return the texts that wait for a vector: those to embed, and those in the cache."""
        cached = {self.text_of(name) for name, state in self.states.items() if state["cached"]}
        waiting = {
            self.text_of(name)
            for name, state in self.states.items()
            if state["vector"] != "current" and self._embeds(state, stage)
        }
        return waiting - cached, waiting & cached

    def _embeds(self, state: dict[str, Any], stage: str | None) -> bool:
        if stage is not None:
            return bool(state["chunk"] != "none")
        return bool(state["chunk"] == "current" and state["object"] == "same")


_COUNTED = (
    "documents_to_cut",
    "documents_to_drop",
    "chunks_waiting",
    "vectors_to_drop",
    "rows_to_write",
    "rows_to_delete",
)


def figures(stale: Stale) -> dict[str, int]:
    work = stale.work
    found = {name: getattr(work, name) for name in _COUNTED}
    found |= {name: getattr(stale.objects, name) for name in ("new", "changed", "deleted")}
    return {name: count for name, count in found.items() if count}


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    states=st.lists(_STATE, max_size=10),
    stage=st.sampled_from([None, "documents", "chunks", "embeddings", "index_partitions"]),
)
def test_counts_are_those_of_every_row(
    states: list[dict[str, Any]], stage: str | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    world = World(tmp_path_factory.mktemp("world"), states)
    found = survey(world.store, world.config, stage=stage).partitions
    assert list(found) == all_partition_keys(world.config)
    for key, stale in found.items():
        assert figures(stale) == world.count(key, stage), key
        assert stale.is_stale is bool(world.count(key, stage))
        assert stale.weight >= max(1, stale.objects.to_parse + stale.objects.deleted)
    work = total(stale.work for stale in found.values())
    if stage in (None, "embeddings"):
        to_embed, reused = world.texts(stage)
        assert (work.texts_to_embed, work.texts_reused) == (len(to_embed), len(reused))
    assert set(stale_partitions(world.store, world.config, stage=stage)) == {
        key for key in found if world.count(key, stage)
    }


_STATES = ("new", "changed", "gone", "same", "same")


def test_plan_adds_the_partitions_up(tmp_path: Path) -> None:
    base = {"chunk": "current", "vector": "none", "row": "none", "cached": False, "text": "own"}
    world = World(tmp_path, [base | {"object": name} for name in _STATES])
    made = make_plan(world.store, world.config)
    (source,), (index,) = made.sources, made.indexes
    assert (source.new, source.changed, source.deleted, source.unchanged) == (1, 1, 1, 2)
    assert (index.documents_to_cut, index.texts_to_embed, index.rows_to_write) == (2, 2 + 2, 2 + 2)
    assert index.is_estimate
    by_partition = made.to_dict(by_partition=True)["partitions"]
    assert sum(one["objects"]["new"] for one in by_partition) == 1
    assert "partitions" not in made.to_dict()


def test_an_object_in_the_wrong_bucket_makes_both_partitions_stale(tmp_path: Path) -> None:
    """After the number of buckets was changed: where it lies, and where it belongs."""
    state = {"object": "same", "chunk": "none", "vector": "none", "row": "none", "cached": False, "text": "own"}
    world = World(tmp_path, [])
    (world.files / "doc.md").write_text("text")
    belongs = world.partition_of("doc.md")
    lies = next(key for key in all_partition_keys(world.config) if key != belongs)
    world.states = {"doc.md": state}
    world.listed = {item.key: item for item in open_source(world.config.sources[0]).list()}
    world._add("doc.md", state)
    put(world.store, "documents", [row | {"partition_key": lies} for row in world.rows["documents"]])
    stale = stale_partitions(world.store, world.config, stage="documents")
    assert {key: (one.objects.to_parse, one.objects.deleted) for key, one in stale.items()} == {
        belongs: (1, 0),
        lies: (0, 1),
    }


def test_tables_alone_are_compared_without_a_listing(tmp_path: Path) -> None:
    base = {"chunk": "current", "vector": "current", "row": "current", "cached": True, "text": "own"}
    world = World(tmp_path, [base | {"object": name} for name in ("new", "changed", "gone", "same")])
    found = survey(world.store, world.config, listing=False).partitions
    work = total(stale.work for stale in found.values())
    assert (work.documents_to_cut, work.rows_to_delete) == (0, 1)  # the new document's rows have no document


@pytest.mark.parametrize(
    ("arguments", "said"), [({"stage": "foo"}, "no stage 'foo'"), ({"sources": ["x"]}, "no source x")]
)
def test_unknown_names_are_refused(tmp_path: Path, arguments: dict[str, Any], said: str) -> None:
    world = World(tmp_path, [])
    with pytest.raises(ConfigError, match=said):
        stale_partitions(world.store, world.config, **arguments)


def test_blank_documents_are_no_work(tmp_path: Path) -> None:
    world = World(tmp_path, [])
    row = {"doc_id": "blank", "source": "notes", "status": "ok", "text": " \n", "doc_hash": "b"}
    put(world.store, "documents", [row | {"partition_key": all_partition_keys(world.config)[0]}])
    assert stale_partitions(world.store, world.config, stage="chunks") == {}
