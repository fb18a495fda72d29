"""What another version or configuration means for a store, part by part."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deltalake.schema import Field, PrimitiveType
from typer.testing import CliRunner

from rag_assets.cli.app import app
from rag_core import ids
from rag_core.config import RagConfig
from rag_core.embedding.cache import VectorCache
from rag_core.engine.chunkers import chunker_fingerprints
from rag_core.generation import configured
from rag_core.parsing import settings as parser
from rag_core.parsing.settings import ParseSettings, parser_fingerprint
from rag_core.stages.publication import write_manifest
from rag_core.tables.delta import SCHEMAS, ensure_table
from rag_core.tables.handles import open_table
from rag_core.tables.store import Store
from rag_core.upgrade import Changed, Layout, Parsing, check_upgrade, declared, refusal
from tests.unit.stages.generation_rows import START, chunks, config_of, documents, ledger, publish_row, put, vectors

NAMES = ("a.md", "b.md")


@pytest.fixture
def config(tmp_path: Path) -> RagConfig:
    return config_of(tmp_path)


@pytest.fixture
def store(config: RagConfig) -> Store:
    """Two documents of the configuration, indexed and published."""
    store, generation = Store.of(config.store), configured(config)
    made_by = parser_fingerprint(ParseSettings.of(config.parsing, config.sources[0]))
    rows = [
        row | {"object_key": row["doc_id"], "object_id": row["doc_id"], "parser_fingerprint": made_by}
        for row in documents(NAMES)
    ]
    put(store, "documents", rows)
    cut_by = chunker_fingerprints(config)["notes"]
    put(store, "chunks", chunks(NAMES, fingerprint=cut_by), generation.chunk_lane)
    put(store, "embeddings", vectors(generation, NAMES), generation.embedding_lane)
    put(store, "index_partitions", ledger(generation, NAMES), generation.collection)
    row = publish_row(store, generation.collection, generation.settings, number=1)
    named = replace(row, model_fingerprint=generation.spec.fingerprint, published_at=START + timedelta(hours=2))
    write_manifest(store, named, run_id="r")
    return store


def unit_vectors(count: int, dim: int) -> np.ndarray:
    found = np.zeros((count, dim), np.float32)
    found[:, 0] = 1
    return found


def changed(config: RagConfig, **sections: Any) -> RagConfig:
    return RagConfig.model_validate({**config.model_dump(), **sections})


def test_the_same_version_and_configuration_do_nothing(store: Store, config: RagConfig) -> None:
    found = check_upgrade(store, config)
    assert (found.verdict, found.refused, found.parsing, found.partitions) == ("nothing", (), (), 0)
    assert found.changed == ()


def test_an_empty_store_is_left_alone(config: RagConfig) -> None:
    store = Store.of(config.store)
    found = check_upgrade(store, config)
    assert found.verdict == "nothing"
    assert "the first run makes everything" in found.notes[0]
    assert not Path(store.root).exists()


def test_another_parser_reads_every_object_again(
    store: Store, config: RagConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = parser_fingerprint(ParseSettings.of(config.parsing, config.sources[0]))
    monkeypatch.setattr(parser, "PARSER_VERSION", parser.PARSER_VERSION + 1)
    after = parser_fingerprint(ParseSettings.of(config.parsing, config.sources[0]))
    found = check_upgrade(store, config)
    assert found.verdict == "work"
    assert found.changed == (Changed("parser of notes", before, after),)
    assert found.parsing == (Parsing("notes", objects=2, partitions=1),)
    assert not found.second_index


@pytest.mark.slow
def test_another_limit_reads_rejected_objects_only(store: Store, config: RagConfig) -> None:
    settings = ParseSettings.of(config.parsing, config.sources[0])
    rejected = {"status": "rejected", "doc_id": "c.md", "object_key": "c.md", "object_id": "c.md", "source": "notes"}
    put(store, "documents", [rejected | {"parser_fingerprint": parser_fingerprint(settings, rejected=True)}])
    assert check_upgrade(store, config).verdict == "nothing"
    found = check_upgrade(store, changed(config, parsing={"timeout_s": 120}))
    assert found.parsing == (Parsing("notes", objects=1, partitions=1),)
    assert found.changed == ()


@pytest.mark.slow
def test_another_chunking_builds_a_second_index_and_says_that_runs_refuse(store: Store, config: RagConfig) -> None:
    found = check_upgrade(store, changed(config, chunking={"max_tokens": 100}))
    assert found.verdict == "work"
    assert found.second_index
    assert [one.part for one in found.changed] == ["chunker", "index"]
    assert found.changed_settings == ("chunking.max_tokens 254 -> 100",)
    assert found.indexes[-1].documents_to_cut == 2
    assert any("rag run --rebuild" in note for note in found.notes)


def test_another_kind_of_index_embeds_nothing(store: Store, config: RagConfig) -> None:
    spec = configured(config).spec
    hashes = [ids.text_hash(f"{name}@1") for name in NAMES]
    VectorCache(store).append(spec.fingerprint, hashes, unit_vectors(len(hashes), spec.dim))
    found = check_upgrade(store, changed(config, index={"index_type": "HNSW"}))
    target = found.indexes[-1]
    assert [one.part for one in found.changed] == ["index"]
    assert (target.documents_to_cut, target.texts_to_embed, target.rows_to_write) == (0, 0, 2)
    assert found.notes == ()


def test_chunking_of_a_source_changes_rows_in_place(store: Store, config: RagConfig) -> None:
    source = config.sources[0].model_dump() | {"chunking": {"max_tokens": 100}}
    found = check_upgrade(store, changed(config, sources=[source]))
    assert [one.part for one in found.changed] == ["chunker of notes"]
    assert not found.second_index
    assert found.partitions == 1


def test_fewer_buckets_move_documents_and_say_which_partitions_go(store: Store, config: RagConfig) -> None:
    moved = {"doc_id": "d.md", "object_key": "d.md", "object_id": "d.md", "source": "notes", "status": "ok"}
    made_by = parser_fingerprint(ParseSettings.of(config.parsing, config.sources[0]))
    put(store, "documents", [moved | {"partition_key": "notes__07", "parser_fingerprint": made_by, "text": " "}])
    found = check_upgrade(store, config)
    assert found.parsing == (Parsing("notes", objects=1, partitions=1),)
    assert "notes__07" in found.notes[0]


@pytest.mark.parametrize("table", ["documents", "published_index", "alerts"])
def test_a_table_of_a_later_version_is_refused(store: Store, config: RagConfig, table: str) -> None:
    ensure_table(store, table)
    open_table(store, table).alter.add_columns([Field("added_later", PrimitiveType("string"))])
    found = check_upgrade(store, config)
    assert found.verdict == "refused"
    (sentence,) = found.refused
    assert f"table {table} at " in sentence
    assert "later version" in sentence
    assert "added_later" in sentence


def test_what_a_table_must_have() -> None:
    wanted = declared("chunks")
    assert refusal("u", "chunks", wanted) == ""
    fewer = {name: kind for name, kind in wanted.columns.items() if name != "lane"}
    assert "earlier version: no column lane;" in refusal("u", "chunks", Layout(fewer, wanted.partition_by))
    other = replace(wanted, columns={**wanted.columns, "text": "binary"})
    assert "text is binary, expected string" in refusal("u", "chunks", other)
    whole = refusal("u", "chunks", replace(wanted, partition_by=()))
    assert "partitioned by nothing, expected lane, partition_key" in whole


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_a_table_that_was_just_made_is_not_refused(store: Store, config: RagConfig, name: str) -> None:
    table = ensure_table(store, name)
    columns = {one.name: one.type.to_json().strip('"') for one in table.schema().fields}
    assert refusal("u", name, Layout(columns, tuple(table.metadata().partition_columns))) == ""


@pytest.mark.slow
def test_the_exit_code_tells_a_script(
    store: Store, config: RagConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rag.yaml"
    monkeypatch.setenv("RAG_CONFIG", str(path))

    def run(**sections: Any) -> tuple[int, Any]:
        source = {"name": "notes", "kind": "files", "root": str(tmp_path)}
        values = {"store": {"root": config.store.root}, "sources": [source], "buckets": 1, **sections}
        path.write_text(json.dumps(values))
        done = CliRunner().invoke(app, ["upgrade-check"])
        return done.exit_code, done.output

    assert run()[0] == 0
    assert run(index={"index_type": "HNSW"})[0] == 3
    open_table(store, "documents").alter.add_columns([Field("added_later", PrimitiveType("string"))])
    assert run()[0] == 1
