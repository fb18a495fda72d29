"""Peak memory of every process of a pipeline run, by role: a thread that looks at the process tree while it lives.

Resident size (RSS) is what limits on a container count; pages shared between processes are in the RSS of each. Unique
size (USS) leaves them out, and is read more rarely because the kernel walks page tables for it.
"""

import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from rag_core.index.lite_files import LiteFiles, ServerInfo, is_locked

PIPELINE = "pipeline"
_STARTING = "starting"
_OTHER = "other"
# The first pattern that occurs in a command line decides. PySpark's workers are forks of `pyspark.daemon`, and what
# plans a data source or commits its write is a `pyspark.*worker` of its own.
_PATTERNS = (
    ("rag_core.parsing.child", "parser child"),
    ("rag_core.embedding.worker", "embedding worker"),
    ("rag_core.embedding.resident", "embedding worker"),
    ("rag_core.index.lite_server", "Milvus supervisor"),
    ("milvus_lite", "Milvus Lite server"),
    ("pyspark.", "Spark Python worker"),
    ("watch_orphans", "Dagster log capture"),
    ("/compute_logs/", "Dagster log capture"),
)
ROLES = (PIPELINE, "JVM", *dict.fromkeys(role for _, role in reversed(_PATTERNS)), _OTHER)
_USS_EVERY = 10
_SHOWN_CHARS = 120
MIB = 1024 * 1024


def role_of(command: Sequence[str], *, root_command: Sequence[str] | None = None) -> str:
    """Name the part that a process of the tree plays, from its command line.

    Args:
        command: Its arguments, the program first; empty for a process that ended.
        root_command: Arguments of the tree's root. A child that still has them was forked and has not started its own
            program yet; its memory is the parent's, so it is `starting` and not counted.
    """
    if not command or (root_command is not None and list(command) == list(root_command)):
        return _STARTING
    if Path(command[0]).name == "java":
        return "JVM"
    text = " ".join(command[1:])
    return next((role for pattern, role in _PATTERNS if pattern in text), _OTHER)


@dataclass
class Peak:
    """The most that one process of a role used, and how many there were at once.

    Attributes:
        rss_bytes: Largest resident size of one process, from the kernel's own high-water mark where there is one.
        uss_bytes: Largest unique size of one process; 0 if it ended before it was read.
        processes: Most processes of the role at one time.
        total_rss_bytes: Largest sum over the role at one time, shared pages counted in each.
    """

    rss_bytes: int = 0
    uss_bytes: int = 0
    processes: int = 0
    total_rss_bytes: int = 0


@dataclass(frozen=True)
class Sample:
    """Resident size of the largest process of each role at one time (seconds since the epoch)."""

    at: float
    rss_bytes: Mapping[str, int]


class MemorySampler:
    """Samples a process tree, and what is no part of it: the store's Milvus Lite server and its embedding worker.

    Use as a context manager.

    Args:
        root_pid: The pipeline's process.
        lite: Where the store's local server says what runs.
        interval_s: Time between samples.

    Attributes:
        peaks: By role.
        tree_rss_bytes: Largest sum over all processes at one time, shared pages counted in each.
        others: Beginnings of the command lines of processes without a role.
        samples: In order of time.
    """

    def __init__(self, root_pid: int, lite: LiteFiles, *, interval_s: float = 0.2) -> None:
        self.peaks: dict[str, Peak] = {}
        self.tree_rss_bytes = 0
        self.others: set[str] = set()
        self.samples: list[Sample] = []
        self._root = psutil.Process(root_pid)
        self._lite = lite
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._roles: dict[psutil.Process, str] = {}
        self._thread = threading.Thread(target=self._run, name="memory-sampler", daemon=True)

    def __enter__(self) -> "MemorySampler":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(self._interval_s):
            try:
                self._sample(with_uss=number % _USS_EVERY == 0)
            except psutil.NoSuchProcess:  # the root ended; its children were reaped with it
                continue
            number += 1

    def _sample(self, *, with_uss: bool) -> None:
        sizes: dict[str, list[int]] = {}
        root_command = self._root.cmdline()
        for process in {self._root, *self._root.children(recursive=True), *self._detached()}:
            try:
                role = self._role(process, root_command)
                if role == _STARTING:
                    continue
                if role == _OTHER:
                    self.others.add(" ".join(process.cmdline())[:_SHOWN_CHARS])
                rss = process.memory_info().rss
                peak = self.peaks.setdefault(role, Peak())
                peak.rss_bytes = max(peak.rss_bytes, rss, high_water_bytes(process.pid))
                if with_uss:
                    peak.uss_bytes = max(peak.uss_bytes, process.memory_full_info().uss)
                sizes.setdefault(role, []).append(rss)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        for role, listed in sizes.items():
            self.peaks[role].processes = max(self.peaks[role].processes, len(listed))
            self.peaks[role].total_rss_bytes = max(self.peaks[role].total_rss_bytes, sum(listed))
        self.tree_rss_bytes = max(self.tree_rss_bytes, sum(map(sum, sizes.values())))
        self.samples.append(Sample(time.time(), {role: max(listed) for role, listed in sizes.items()}))

    def _role(self, process: psutil.Process, root_command: Sequence[str]) -> str:
        if process == self._root:
            return PIPELINE
        # A process's program is looked up once, but again while it is only starting: fork first, then exec.
        if process not in self._roles:
            role = role_of(process.cmdline(), root_command=root_command)
            if role in (_STARTING, _OTHER):
                return role
            self._roles[process] = role
        return self._roles[process]

    def _detached(self) -> Iterable[psutil.Process]:
        info = ServerInfo.read(self._lite.server)
        pids = [info.pid, info.supervisor_pid] if info is not None else []
        workers = (self._lite.data.parents[1] / "work" / "resident").glob("*.alive")
        pids += [int(alive.read_text() or 0) for alive in workers if is_locked(alive)]
        for pid in filter(None, pids):
            try:
                yield psutil.Process(pid)
            except psutil.NoSuchProcess:
                continue


def high_water_bytes(pid: int) -> int:
    """Return the kernel's own peak of the resident size of a process; 0 where the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), "VmHWM: 0 kB")
    return int(line.split()[1]) * 1024


def peak_between(samples: Iterable[Sample], start: float, end: float) -> dict[str, int]:
    """Return the largest sampled resident size of each role between two times, in bytes."""
    peaks: dict[str, int] = {}
    for sample in samples:
        if start <= sample.at <= end:
            for role, size in sample.rss_bytes.items():
                peaks[role] = max(peaks.get(role, 0), size)
    return peaks


def folder_bytes(folder: Path) -> int:
    """Sum the sizes of the files of a folder."""
    return sum(os.lstat(path).st_size for path in folder.rglob("*") if path.is_file())
