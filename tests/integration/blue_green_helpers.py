"""A small store that is published, changed and published again, and what is left of each index in it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from rag_core.generation import configured
from rag_core.index.client import connect
from rag_core.retrieval.retriever import open_retriever
from rag_core.stages.publication import Manifest, latest_manifest, manifests
from rag_core.tables.delta import LANES, SCHEMAS, TableSlice, ensure_table, lanes_of
from tests.integration.pipeline_helpers import Platform

SUBJECTS = (
    "turbine", "harbour", "orchard", "glacier", "violin", "compass", "lantern", "saddle", "furnace", "kettle",
    "anchor", "quarry", "beehive", "windmill", "pottery", "telegraph",
)  # fmt: skip
_SENTENCES = (
    "The {0} keeper {1} records every reading of the {0} in a green ledger before sunrise.",
    "Nobody may move the {0} without the written consent of inspector {1} and two witnesses.",
    "In winter the {0} of district {1} is covered with straw, oiled twice and inspected by lamplight.",
    "A broken {0} part number {1} is replaced from the cabinet behind the northern staircase.",
    "The yearly {0} report lists costs, accidents and apprentices trained under supervisor {1}.",
    "Visitors who ask about the {0} are shown model {1} in the long gallery and given a leaflet.",
)


def text_of(number: int) -> str:
    """Write a document about a subject that no other has; two paragraphs of some sixty tokens each."""
    name = SUBJECTS[number % len(SUBJECTS)] + ("" if number < len(SUBJECTS) else f"{number}")
    sentences = [sentence.format(name, 100 + number * 7 + at) for at, sentence in enumerate(_SENTENCES)]
    return " ".join(sentences[:3]) + "\n\n" + " ".join(sentences[3:])


class Records:
    """Documents of a JSON Lines source, with their readers."""

    def __init__(self, path: Path, count: int) -> None:
        self.path = path
        self._rows = {f"doc{n:02d}": {"text": text_of(n), "principals": ["everyone"]} for n in range(count)}
        self._write()

    @property
    def source(self) -> dict[str, Any]:
        return {"name": "notes", "kind": "jsonl", "root": str(self.path), "principals_field": "principals"}

    def put(self, name: str, text: str, *principals: str) -> None:
        self._rows[name] = {"text": text, "principals": list(principals) or ["everyone"]}
        self._write()

    def text(self, name: str) -> str:
        return str(self._rows[name]["text"])

    def remove(self, name: str) -> None:
        del self._rows[name]
        self._write()

    def _write(self) -> None:
        rows = [{"_id": name, "title": name, **row} for name, row in self._rows.items()]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def served(platform: Platform) -> Manifest:
    """Return the newest manifest, after making sure that the alias agrees."""
    manifest = latest_manifest(platform.store)
    assert manifest is not None
    with connect(platform.config.index, platform.store) as client:
        assert client.alias_target(manifest.alias) == manifest.collection
    return manifest


def target(platform: Platform) -> str:
    """Return the collection that rag.yaml asks for."""
    return configured(platform.config).collection


def collections(platform: Platform) -> set[str]:
    """Return the collections in Milvus."""
    with connect(platform.config.index, platform.store) as client:
        return set(client.collections())


def lanes(platform: Platform) -> dict[str, set[str]]:
    """Return the lanes that have rows, by table."""
    return {table: set(lanes_of(platform.store, table)) for table in LANES}


def versions(platform: Platform) -> dict[str, int]:
    """Return the version of every table."""
    return {name: ensure_table(platform.store, name).version() for name in SCHEMAS}


def held(platform: Platform, collection: str) -> dict[str, str]:
    """Return row_hash by chunk id of what Milvus holds in a collection; the ledger must say the same."""
    with connect(platform.config.index, platform.store) as client:
        rows = list(client.list_rows(collection, None, ["row_hash"]))
    found = {row["chunk_id"]: row["row_hash"] for row in rows}
    assert len(found) == len(rows)
    ledger = TableSlice.newest(platform.store, "index_partitions", lane=collection).read(["chunk_id", "row_hash"])
    assert found == dict(zip(ledger["chunk_id"].to_pylist(), ledger["row_hash"].to_pylist(), strict=True))
    return found


def external_ids(platform: Platform, collection: str) -> set[str]:
    """Return the documents that a collection holds anything of."""
    with connect(platform.config.index, platform.store) as client:
        return {row["external_id"] for row in client.list_rows(collection, None, ["external_id"])}


def found(platform: Platform, question: str, mode: str = "bm25", top_k: int = 100) -> list[str]:
    """Search in what is served, and return the documents' own ids, best first."""
    with open_retriever(platform.config) as retriever:
        hits = retriever.search(question, mode=mode, top_k=top_k)  # type: ignore[arg-type]
    return [hit.external_id or "" for hit in hits]


def configure(platform: Platform, settings: Mapping[str, Any]) -> Platform:
    """Rewrite rag.yaml over the same store."""
    return Platform(platform.root, platform.sources, dict(settings))


def publications(platform: Platform, collection: str) -> int:
    """Count the manifests of a collection."""
    return sum(one.collection == collection for one in manifests(platform.store))


def count_chunks(platform: Platform, lane: str) -> int:
    """Count the chunks of a lane."""
    return TableSlice.newest(platform.store, "chunks").count(pc.field("lane") == lane)
