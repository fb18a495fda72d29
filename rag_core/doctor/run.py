"""Looks at this machine: what the configuration needs and does not find, and how to get it. Changes nothing."""

import importlib.util
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import psutil
import yaml

from rag_core.config import RagConfig, S3Source, SourceConfig
from rag_core.config_checks import check_model, model_folder
from rag_core.config_loader import LoadedConfig
from rag_core.config_store import StoreConfig
from rag_core.errors import ConfigError, PermanentError, SourceError, StoreError
from rag_core.sources.factory import open_source
from rag_core.sources.s3 import S3Objects
from rag_core.sources.s3_events import waiting_messages
from rag_core.tables.s3_probe import probe
from rag_core.tables.store import Store

MIN_PYTHON = (3, 11)
MIN_JAVA = 17
_MIN_MEMORY_BYTES = 3 * 1024**3  # peak of the largest process, with room for the system
_MIN_DISK_BYTES = 2 * 1024**3
_PORTS = {"https": 443, "sc": 15_002, "spark": 7_077}
_CONNECT_TIMEOUT_S = 3.0
_JAVA_TIMEOUT_S = 20.0
_JAVA_REMEDY = (
    "install one (Debian, Ubuntu: apt install openjdk-17-jre-headless; macOS: brew install openjdk@17; "
    "or https://adoptium.net) and set JAVA_HOME if it is not first on the PATH"
)

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What.
        status: `ok`; `warn`: works, but less well or not in every case; `fail`: something configured cannot work.
        detail: What was found.
        remedy: What to do; empty where nothing is to be done.
    """

    name: str
    status: Status
    detail: str
    remedy: str = ""


def run_doctor(loaded: LoadedConfig, env: Mapping[str, str] | None = None) -> list[Finding]:
    """Look at everything, in a fixed order; takes a few seconds at most, where a server does not answer."""
    env = os.environ if env is None else env
    config = loaded.config
    return [
        _python(),
        _java(env),
        *_spark(config),
        _memory(),
        _store(config.store),
        *(finding for source in config.sources for finding in _source(source)),
        _model(config),
        _half_precision(),
        _milvus(config),
        *_telemetry(config, env),
    ]


def require_java(env: Mapping[str, str] | None = None) -> None:
    """Make sure that Spark can start.

    Raises:
        PermanentError: Java is missing or too old; the message is one sentence with what to do.
    """
    problem = _java_problem(os.environ if env is None else env)
    if problem:
        raise PermanentError(f"{problem}: {_JAVA_REMEDY}.")


def _python() -> Finding:
    found = platform.python_version()
    if sys.version_info[:2] >= MIN_PYTHON:
        return Finding("Python", "ok", found)
    wanted = ".".join(map(str, MIN_PYTHON))
    return Finding("Python", "fail", f"{found}; {wanted} or newer is needed", f"install Python {wanted}")


def _java(env: Mapping[str, str]) -> Finding:
    problem = _java_problem(env)
    if problem:
        return Finding("Java", "warn", f"{problem}; changes of few objects do without", _JAVA_REMEDY)
    return Finding("Java", "ok", f"version {_java_version(_java_program(env))}")


def _spark(config: RagConfig) -> Iterator[Finding]:
    spark = config.spark
    remedy = "start it, or correct {}; docs/spark.md says what it needs"
    if spark.remote is not None:
        yield _endpoint("Spark Connect", spark.address, remedy.format("spark.remote"))
    elif spark.master.startswith("spark://"):
        yield _endpoint("Spark master", spark.address, remedy.format("spark.master"))


def _java_problem(env: Mapping[str, str]) -> str | None:
    program = _java_program(env)
    if program is None:
        return f"Java {MIN_JAVA} or newer is needed for Spark and none was found"
    version = _java_version(program)
    if version is None:
        return f"Java {MIN_JAVA} or newer is needed for Spark and {program} does not run"
    if version < MIN_JAVA:
        return f"Java {MIN_JAVA} or newer is needed for Spark and {program} is version {version}"
    return None


def _java_program(env: Mapping[str, str]) -> str | None:
    """Find the program as Spark does: JAVA_HOME first, then the PATH."""
    home = env.get("JAVA_HOME")
    return str(Path(home, "bin", "java")) if home else shutil.which("java", path=env.get("PATH", os.defpath))


def _java_version(program: str | None) -> int | None:
    """Return the major version; None if the program does not run or says none."""
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "-version"], capture_output=True, text=True, timeout=_JAVA_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r'version "(?:1\.)?(\d+)', done.stderr + done.stdout)  # Java 8 calls itself 1.8
    return int(found[1]) if found and done.returncode == 0 else None


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    limit = _container_limit()
    total, available = min(memory.total, limit), min(memory.available, limit)
    detail = f"{_gib(available)} available of {_gib(total)}"
    if available >= _MIN_MEMORY_BYTES:
        return Finding("memory", "ok", detail)
    remedy = "close other programs, or lower embedding.batch_tokens and parsing.memory_mib"
    return Finding("memory", "warn", f"{detail}; {_gib(_MIN_MEMORY_BYTES)} is advised", remedy)


def _container_limit() -> float:
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            return float(Path(path).read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue  # not in a container, or "max": no limit
    return float("inf")


def _store(config: StoreConfig) -> Finding:
    store = Store.of(config)
    if store.is_local:
        return _disk(config.root)
    try:
        encrypted = probe(store)
    except StoreError as error:
        return Finding("store", "fail", str(error), "docs/s3.md says what the store needs")
    except OSError as error:
        return Finding("store", "fail", f"{store.root}: {error}", "docs/s3.md says what the store needs")
    said = f"{store.root}: can be listed, written (also under a condition), read and deleted; encryption: {encrypted}"
    return Finding("store", "ok", said)


def _disk(root: str) -> Finding:
    folder = next(path for path in (Path(root), *Path(root).parents) if path.exists())
    remedy = "choose another store.root, or make the folder writable"
    try:
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding("store", "fail", f"{folder} cannot be written: {error.strerror}", remedy)
    if free < _MIN_DISK_BYTES:
        return Finding("store", "warn", f"{root}: {_gib(free)} free", "make room, or choose another store.root")
    return Finding("store", "ok", f"{root}: writable, {_gib(free)} free")


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


def _model(config: RagConfig) -> Finding:
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


def _half_precision() -> Finding:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return Finding("bf16", "ok", "cannot be told on this system; it is measured when the model is loaded")
    found = sorted(set(re.findall(r"\b(avx512_bf16|amx_bf16|bf16)\b", flags)))
    if found:
        return Finding("bf16", "ok", f"the processor has {', '.join(found)}")
    return Finding("bf16", "warn", "the processor has no bf16: embedding on it runs in fp32, at about half the speed")


def _milvus(config: RagConfig) -> Finding:
    if config.index.uri is not None:
        return _endpoint("Milvus", config.index.uri, "start it, or correct index.uri (empty: Milvus Lite)")
    if importlib.util.find_spec("milvus_lite") is None:
        return Finding("Milvus", "fail", "Milvus Lite is not installed", "pip install milvus-lite, or set index.uri")
    return Finding("Milvus", "ok", "Milvus Lite, started and stopped by itself on 127.0.0.1")


def _endpoint(name: str, uri: str, remedy: str) -> Finding:
    try:
        parts = urlsplit(uri)
        address = (parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 80))
        with socket.create_connection(address, timeout=_CONNECT_TIMEOUT_S):
            return Finding(name, "ok", f"{address[0]}:{address[1]} accepts connections")
    except (OSError, ValueError) as error:
        return Finding(name, "fail", f"nothing answers at {_without_user(uri)}: {error}", remedy)


def _without_user(uri: str) -> str:
    return re.sub(r"//[^/@]*@", "//", uri)


def _telemetry(config: RagConfig, env: Mapping[str, str]) -> Iterator[Finding]:
    home = env.get("DAGSTER_HOME")
    if not home:
        yield Finding("telemetry", "ok", "DAGSTER_HOME is not set: the project's commands make one with telemetry off")
    elif _dagster_telemetry_is_off(Path(home, "dagster.yaml")):
        yield Finding("telemetry", "ok", f"off in {home}/dagster.yaml")
    else:
        remedy = f"write `telemetry: {{enabled: false}}` into {home}/dagster.yaml"
        yield Finding("telemetry", "warn", f"Dagster's is on: {home}/dagster.yaml does not turn it off", remedy)
    if config.embedding.allow_download:
        detail = "embedding.allow_download is on: the model hub is asked for models"
        yield Finding("model hub", "warn", detail, "turn it off once the model is on disk")


def _dagster_telemetry_is_off(path: Path) -> bool:
    try:
        settings = yaml.safe_load(path.read_bytes())
    except (OSError, yaml.YAMLError):
        return False
    telemetry = settings.get("telemetry") if isinstance(settings, dict) else None
    return isinstance(telemetry, dict) and telemetry.get("enabled") is False


def _gib(size: float) -> str:
    return f"{size / 1024**3:.1f} GiB"
