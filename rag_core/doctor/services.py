"""The servers that the configuration names: whether they answer, and let us in."""

import importlib.util
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

from rag_core.caching.invalidation import caches_of
from rag_core.config import RagConfig
from rag_core.config_checks import check_model, model_folder
from rag_core.doctor.finding import Finding
from rag_core.errors import ConfigError, RagError, TransientError
from rag_core.index.client import connect
from rag_core.tables.store import Store

_PORTS = {"https": 443, "sc": 15_002, "spark": 7_077}
_CONNECT_TIMEOUT_S = 3.0


def find_spark(config: RagConfig) -> Iterator[Finding]:
    """Ask whether the cluster of Spark listens; nothing where Spark runs in this process."""
    spark = config.spark
    remedy = "start it, or correct {}; docs/spark.md says what it needs"
    if spark.remote is not None:
        yield _endpoint("Spark Connect", spark.address, remedy.format("spark.remote"))
    elif spark.master.startswith("spark://"):
        yield _endpoint("Spark master", spark.address, remedy.format("spark.master"))


def find_model(config: RagConfig) -> Finding:
    """Look for the model on disk, or for the endpoint that embeds."""
    embedding = config.embedding
    if embedding.backend == "openai":
        return _endpoint("embedding model", embedding.base_url or "", "start it, or correct embedding.base_url")
    try:
        check_model(embedding)
        folder = model_folder(embedding)
    except ConfigError as error:
        return Finding("embedding model", "fail", f"{embedding.model}: {error}", "choose a model that is on disk")
    if folder is None:
        return Finding("embedding model", "warn", f"{embedding.model} is fetched at the first run", "be online then")
    return Finding("embedding model", "ok", f"{embedding.model} in {folder}")


def find_milvus(config: RagConfig) -> Finding:
    """Log in to the Milvus server, and compare what it offers with what is asked of it; Milvus Lite is not started."""
    index = config.index
    if index.uri is None:
        if importlib.util.find_spec("milvus_lite") is None:
            remedy = "pip install milvus-lite, or set index.uri"
            return Finding("Milvus", "fail", "Milvus Lite is not installed", remedy)
        return Finding("Milvus", "ok", "Milvus Lite, started and stopped by itself on 127.0.0.1")
    try:
        hasty = index.model_copy(update={"timeout_s": min(index.timeout_s, _CONNECT_TIMEOUT_S)})
        with connect(hasty, Store.of(config.store)) as client:
            offered = client.capabilities
    except TransientError as error:
        return Finding("Milvus", "fail", str(error), "start it, or correct index.uri (empty: Milvus Lite)")
    except RagError as error:
        return Finding("Milvus", "fail", str(error), "correct `index`; docs/milvus.md says what each version has")
    return Finding("Milvus", "ok", f"{offered.label} at {index.uri} lets us in, and has what `index` asks for")


def find_redis(config: RagConfig) -> Iterator[Finding]:
    """Ask the Redis that caches are kept in; nothing where none is configured."""
    caches = caches_of(config, Store.of(config.store))
    if caches is not None:
        try:
            caches.ping()
        except TransientError as error:
            yield Finding("Redis", "fail", str(error), "start it, or correct RAG_SERVING__CACHE__REDIS_URL")
        else:
            yield Finding("Redis", "ok", "answers")


def _endpoint(name: str, uri: str, remedy: str) -> Finding:
    try:
        parts = urlsplit(uri)
        address = (parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 80))
        with socket.create_connection(address, timeout=_CONNECT_TIMEOUT_S):
            return Finding(name, "ok", f"{address[0]}:{address[1]} accepts connections")
    except (OSError, ValueError) as error:
        return Finding(name, "fail", f"nothing answers at {uri}: {error}", remedy)
