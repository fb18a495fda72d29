"""This machine: Python, memory, disk, its processor, and what Dagster tells others of it."""

import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import yaml

from rag_core.config import RagConfig
from rag_core.doctor.finding import Finding

MIN_PYTHON = (3, 11)
_MIN_MEMORY_BYTES = 3 * 1024**3  # peak of the largest process, with room for the system
_MIN_DISK_BYTES = 2 * 1024**3


def find_python() -> Finding:
    """Compare the version of Python with the oldest that works."""
    found = platform.python_version()
    if sys.version_info[:2] >= MIN_PYTHON:
        return Finding("Python", "ok", found)
    wanted = ".".join(map(str, MIN_PYTHON))
    return Finding("Python", "fail", f"{found}; {wanted} or newer is needed", f"install Python {wanted}")


def find_memory() -> Finding:
    """Compare the memory that is left, here or in this container, with what the largest process takes."""
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


def find_disk(root: str) -> Finding:
    """Look whether a local store can be written, and what room it has."""
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


def find_half_precision() -> Finding:
    """Tell whether the processor embeds in bf16, in half the time."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return Finding("bf16", "ok", "cannot be told on this system; it is measured when the model is loaded")
    found = sorted(set(re.findall(r"\b(avx512_bf16|amx_bf16|bf16)\b", flags)))
    if found:
        return Finding("bf16", "ok", f"the processor has {', '.join(found)}")
    return Finding("bf16", "warn", "the processor has no bf16: embedding on it runs in fp32, at about half the speed")


def find_telemetry(config: RagConfig, env: Mapping[str, str]) -> Iterator[Finding]:
    """Tell whether anything here tells others about us: Dagster's telemetry, questions to a model hub."""
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
