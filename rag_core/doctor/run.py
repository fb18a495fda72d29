"""Everything that is looked at, in its order."""

import os
from collections.abc import Iterator, Mapping

from rag_core.config import S3Source, SourceConfig
from rag_core.config_loader import LoadedConfig
from rag_core.config_store import StoreConfig
from rag_core.doctor.finding import Finding
from rag_core.doctor.java import find_java
from rag_core.doctor.machine import find_disk, find_half_precision, find_memory, find_python, find_telemetry
from rag_core.doctor.services import find_milvus, find_model, find_redis, find_spark
from rag_core.errors import ConfigError, SourceError, StoreError
from rag_core.sources.factory import open_source
from rag_core.sources.s3 import S3Objects
from rag_core.sources.s3_events import waiting_messages
from rag_core.tables.s3_probe import probe
from rag_core.tables.store import Store


def run_doctor(loaded: LoadedConfig, env: Mapping[str, str] | None = None) -> list[Finding]:
    """Look at everything, in a fixed order; a server that listens and does not answer takes up to 15 s."""
    env = os.environ if env is None else env
    config = loaded.config
    return [
        find_python(),
        find_java(config.spark, env),
        *find_spark(config),
        find_memory(),
        _store(config.store),
        *(finding for source in config.sources for finding in _source(source)),
        find_model(config),
        find_half_precision(),
        find_milvus(config),
        *find_redis(config),
        *find_telemetry(config, env),
    ]


def _store(config: StoreConfig) -> Finding:
    store = Store.of(config)
    if store.is_local:
        return find_disk(config.root)
    try:
        encrypted = probe(store)
    except StoreError as error:
        return Finding("store", "fail", str(error), "docs/s3.md says what the store needs")
    except OSError as error:
        return Finding("store", "fail", f"{store.root}: {error}", "docs/s3.md says what the store needs")
    said = f"{store.root}: can be listed, written (also under a condition), read and deleted; encryption: {encrypted}"
    return Finding("store", "ok", said)


def _source(config: SourceConfig) -> Iterator[Finding]:
    name = f"source {config.name}"
    source = open_source(config)
    try:
        first = next(iter((source.impatient() if isinstance(source, S3Objects) else source).list()), None)
    except (ConfigError, SourceError) as error:
        yield Finding(name, "fail", str(error), "correct the source in rag.yaml, or make it readable")
    else:
        if first is None:
            place = "prefix" if config.kind == "s3" else "root"
            detail = "nothing in it is admitted by include and exclude"
            yield Finding(name, "warn", detail, f"check {place} and the globs")
        else:
            yield Finding(name, "ok", f"kind {config.kind}, lists {first.key} and so on")
    if config.kind == "s3" and config.events is not None:
        yield _queue(config, config.events.queue_url)


def _queue(config: S3Source, address: str) -> Finding:
    name = f"queue of {config.name}"
    try:
        return Finding(name, "ok", f"{address}: about {waiting_messages(config, tries=1)} messages wait")
    except SourceError as error:
        return Finding(name, "fail", str(error), "correct events.queue_url, or allow what docs/freshness.md lists")
