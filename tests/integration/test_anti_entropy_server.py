"""What only a real server does: it holds an id twice, and deletes in one partition only."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from rag_core.config import IndexConfig
from rag_core.index.anti_entropy import doubled_ids, listed_rows
from rag_core.index.client import IndexClient
from rag_core.index.connection import Connection
from tests.production.services import milvus

pytestmark = [pytest.mark.milvus_server, pytest.mark.slow]
COLLECTION, HERE, BESIDE = "doubled", "a__00", "b__00"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IndexClient]:
    pytest.importorskip("milvus", reason="the package `milvus` with the standalone server is not installed")
    with milvus(tmp_path_factory.mktemp("server")) as uri:
        config = IndexConfig(uri=uri)
        connection = Connection(config, uri)
        yield IndexClient(config, connection, connection.capabilities(), write_lock=None)
        connection.close()


def row(number: int, row_hash: str = "r") -> dict[str, Any]:
    vector = np.random.default_rng(number).normal(size=8).astype(np.float32)
    return {"chunk_id": name(number), "row_hash": row_hash, "text_hash": "t", "model_fingerprint": "m", "dense": vector}


def name(number: int) -> str:
    return f"{number:032x}"


def make_collection(milvus: Any) -> None:
    """Make one without sparse vectors, which the server of that package is too old for."""
    from pymilvus import DataType, MilvusClient

    schema = MilvusClient.create_schema(auto_id=False)
    schema.add_field("chunk_id", DataType.VARCHAR, max_length=32, is_primary=True)
    for field in ("row_hash", "text_hash", "model_fingerprint"):
        schema.add_field(field, DataType.VARCHAR, max_length=64)
    schema.add_field("dense", DataType.FLOAT_VECTOR, dim=8)
    index = MilvusClient.prepare_index_params()
    index.add_index("dense", index_type="FLAT", metric_type="COSINE")
    milvus.create_collection(COLLECTION, schema=schema)
    milvus.create_index(COLLECTION, index)
    for partition in (HERE, BESIDE):
        milvus.create_partition(COLLECTION, partition)
    milvus.load_collection(COLLECTION)
    milvus.upsert(COLLECTION, [row(number) for number in range(500)], partition_name=HERE)
    milvus.insert(COLLECTION, [row(number, "again") for number in (0, 7, 250, 499)], partition_name=HERE)
    milvus.insert(COLLECTION, [row(3)], partition_name=BESIDE)


def test_duplicates_are_counted_and_not_listed(client: IndexClient) -> None:
    client._connection.call("making the collection", make_collection)
    assert client.count(COLLECTION, HERE) == 504
    listed = listed_rows(client, COLLECTION, HERE)
    assert listed.num_rows == 500
    ordered = sorted(listed["chunk_id"].to_pylist())
    assert sorted(doubled_ids(client, COLLECTION, HERE, ordered)) == [name(number) for number in (0, 7, 250, 499)]
    client.delete(COLLECTION, HERE, [name(7)])
    assert client.count(COLLECTION, HERE) == 502
    client.delete(COLLECTION, BESIDE, [name(3)])
    assert (client.count(COLLECTION, HERE), client.count(COLLECTION, BESIDE)) == (502, 0)
