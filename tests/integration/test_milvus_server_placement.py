"""Shards and copies on a real server of one query node, and what it lacks by its version."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag_core.config import IndexConfig
from rag_core.errors import ConfigError, PermanentError, RagError
from rag_core.index import loading
from rag_core.index.capabilities import capabilities
from rag_core.index.client import IndexClient, connect
from rag_core.index.connection import Connection
from rag_core.index.vectors import decoded, tolerance
from rag_core.tables.store import Store
from tests.index_support import DIM, MODEL, PARTITION, chunk_id, rows, vector
from tests.production.services import milvus

pytestmark = [pytest.mark.milvus_server, pytest.mark.slow]


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("milvus", reason="the package `milvus` with the standalone server is not installed")
    with milvus(tmp_path_factory.mktemp("server")) as address:
        yield address


@contextmanager
def unchecked(config: IndexConfig) -> Iterator[IndexClient]:
    """Connect as if the server had all that a newer one has."""
    connection = Connection(config, str(config.uri))
    newer = capabilities("standalone", (2, 4, 0))
    own = connection.capabilities()
    offered = replace(own, vector_types=newer.vector_types)
    yield IndexClient(config, connection, offered, write_lock=None)
    connection.close()


def index(uri: str, **settings: Any) -> IndexConfig:
    return IndexConfig(**{"uri": uri, "lexical": False, "timeout_s": 20, **settings})


def made(client: IndexClient, name: str) -> None:
    client.ensure_collection(name, dim=DIM, model_fingerprint=MODEL)
    client.ensure_partition(name, PARTITION)
    client.upsert(name, PARTITION, rows(range(20)))


def found(client: IndexClient, name: str) -> int:
    return len(client.search(name, field="dense", query=vector(3), limit=20, fields=()))


def test_shards_are_made_as_asked(tmp_path: Path, uri: str) -> None:
    with connect(index(uri, shards=3), Store(str(tmp_path))) as client:
        made(client, "sharded")
        described = client._connection.call("shards", lambda milvus: milvus.describe_collection("sharded"))
        assert described["num_shards"] == 3
        assert found(client, "sharded") == 20


def test_more_copies_than_query_nodes_are_refused_and_searches_go_on(tmp_path: Path, uri: str) -> None:
    store = Store(str(tmp_path))
    with connect(index(uri), store) as client:
        made(client, "copied")
    with connect(index(uri, replicas=2), store) as client:
        with pytest.raises(RagError, match=r"index\.replicas: 2") as caught:
            client.load("copied")
        assert "replica" in str(caught.value)
        assert found(client, "copied") == 20
    with connect(index(uri, replicas=1), store) as client:
        client.load("copied")
        assert found(client, "copied") == 20


def test_a_resource_group_that_is_not_there_is_refused_by_name(tmp_path: Path, uri: str) -> None:
    store = Store(str(tmp_path))
    with connect(index(uri, resource_groups=("__default_resource_group",)), store) as client:
        made(client, "grouped")
        assert found(client, "grouped") == 20
    with connect(index(uri, resource_groups=("nowhere",)), store) as client:
        with pytest.raises(PermanentError, match=r"index\.resource_groups: \('nowhere',\).*resource group"):
            client.load("grouped")
        assert found(client, "grouped") == 20


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"vector_type": "FLOAT16_VECTOR"}, "vector_type"),
        ({"mmap": True}, "mmap"),
        ({"index_type": "GPU_CAGRA"}, "index_type"),
        ({"index_type": "HNSW_PQ"}, "index_type"),
    ],
)
def test_what_this_version_lacks_is_refused_by_key_and_version(
    tmp_path: Path, uri: str, settings: dict[str, Any], key: str
) -> None:
    with (
        pytest.raises(ConfigError, match=rf"index\.{key}: .*Milvus standalone 2\.3\.5"),
        connect(index(uri, **settings), Store(str(tmp_path))),
    ):
        pass


@pytest.mark.parametrize(
    ("index_type", "build"),
    [
        ("IVF_PQ", {"nlist": 4, "m": 4, "nbits": 4}),
        ("SCANN", {}),
        ("DISKANN", {}),
        ("HNSW", {"M": 8}),
        ("HNSW", {}),
    ],
)
def test_index_types_of_a_server_are_built_and_searched(
    tmp_path: Path, uri: str, index_type: str, build: dict[str, Any]
) -> None:
    name = f"built_{index_type.lower()}_{len(build)}"
    config = index(uri, index_type=index_type, build_params=build)
    with connect(config, Store(str(tmp_path))) as client:
        made(client, name)
        client.flush(name)
        assert client.wait_until_indexed(name) == 20
        hits = client.search(name, field="dense", query=vector(3), limit=20, fields=(), params=config.search_params)
        assert len(hits) == 20


def test_vectors_of_16_bits_come_back_and_are_not_always_found_which_is_why_they_are_refused(uri: str) -> None:
    with unchecked(index(uri, vector_type="FLOAT16_VECTOR")) as client:
        made(client, "halved")
        stored = client.fetch("halved", PARTITION, [chunk_id(number) for number in range(20)], ["dense"])
        for number in range(20):
            read = decoded(stored[chunk_id(number)]["dense"], "FLOAT16_VECTOR")
            assert np.allclose(read, vector(number), rtol=0, atol=tolerance("FLOAT16_VECTOR"))
        queries = [vector(number) for number in range(20)]
        at_once = client.search_many("halved", field="dense", queries=queries, limit=1, fields=())
        assert [hits[0][1]["chunk_id"] for hits in at_once] == [chunk_id(number) for number in range(20)]
        assert min(hits[0][0] for hits in at_once) > 0.99
        alone = [client.search("halved", field="dense", query=query, limit=1, fields=())[0] for query in queries]
        assert min(score for score, _ in alone) < 0.9


def test_a_collection_is_mapped_from_disk_and_back(tmp_path: Path, uri: str) -> None:
    """The requests are those for a newer server; this one keeps the property and pays no heed to it."""
    with connect(index(uri), Store(str(tmp_path))) as client:
        made(client, "mapped")
        for mmap in (True, False):
            change = partial(loading.map_from_disk, name="mapped", mmap=mmap, timeout=20)
            client.ask("index.mmap of mapped", change)
            described = client.ask("description", lambda milvus: milvus.describe_collection("mapped"))
            assert loading.is_mapped(described) is mmap
            client.load("mapped")
            assert found(client, "mapped") == 20
