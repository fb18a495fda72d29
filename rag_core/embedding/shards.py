"""One job in several processes, each with a share of its texts and, where there are GPUs, with one of its own.

All commit to the same cache, so the checkpoints of any are the job's. What the processes say goes to the one that
started them: a line of JSON on standard output for each thing to tell.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rag_core.embedding.job import Progress, Shard
from rag_core.embedding.launch import visible_gpus, worker_command
from rag_core.embedding.manifest import WorkManifest
from rag_core.errors import PermanentError, TransientError

_SUMMED: Final = frozenset(
    {"item_count", "embedded_count", "reused_count", "checkpoints", "texts", "tokens", "padded_tokens", "batches",
     "oom_halvings", "retries", "tokens_per_s", "peak_rss_bytes"}
)  # fmt: skip
_SHARES: Final = frozenset({"reuse_share", "padding_share"})
_PROGRESS_EVERY_S: Final = 0.5
_PIPES: Final = "DAGSTER_PIPES_"


class LinesReporter:
    """The side of a process that embeds a shard: tells of its progress in lines."""

    def __init__(self) -> None:
        self._next = 0.0

    def info(self, message: str) -> None:
        """Leave log lines to the process that sees the whole job."""

    def progress(self, progress: Progress) -> None:
        """Tell how far the shard is, if it is time."""
        if time.monotonic() >= self._next or progress.done_tokens >= progress.todo_tokens:
            self._next = time.monotonic() + _PROGRESS_EVERY_S
            # fmt: off
            self._tell({"progress": [progress.item_count, progress.reused_count, progress.todo_tokens,
                                     progress.done_texts, progress.done_tokens, progress.checkpoints]})
            # fmt: on

    def done(self, measured: dict[str, Any]) -> None:
        """Tell what was measured."""
        self._tell({"measured": measured})

    def failed(self, message: str, *, permanent: bool) -> None:
        """Tell why the shard is not done."""
        self._tell({"failed": message, "permanent": permanent})

    def _tell(self, message: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


@dataclass
class _Process:
    """A process and the last that it said of each kind."""

    number: int
    process: subprocess.Popen[str]
    reader: threading.Thread | None = None
    progress: tuple[int, ...] = ()
    measured: Mapping[str, Any] | None = None
    failure: tuple[str, bool] | None = None


def run_shards(
    address: str, manifest: WorkManifest, on_progress: Callable[[Progress], None], *, count: int
) -> dict[str, Any]:
    """Embed a manifest in `count` processes, and wait for all of them, also where one fails: what they do is kept.

    Returns:
        What was measured, over all of them: sums of counts and rates, shares, the longest times, the highest peaks.

    Raises:
        PermanentError: One says that another try cannot help.
        TransientError: One failed otherwise, or was killed.
    """
    gpus = visible_gpus(manifest.embedding)
    lock = threading.Lock()
    started = time.monotonic()

    def tell() -> None:
        with lock:
            on_progress(_together(manifest, processes, started))

    processes = [_start(address, Shard(number, count), gpus) for number in range(count)]
    try:
        for one in processes:
            one.reader = threading.Thread(target=_read, args=(one, tell), daemon=True)
            one.reader.start()
        for one in processes:
            one.process.wait()
            if one.reader is not None:
                one.reader.join()
    finally:
        for one in processes:
            if one.process.poll() is None:
                one.process.kill()
                one.process.wait()
    _check(processes)
    return merged([one.measured or {} for one in processes])


def merged(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Put together what several processes measured of one job."""
    result: dict[str, Any] = {}
    for name in dict.fromkeys(name for one in measured for name in one):
        values = [one[name] for one in measured if one.get(name) is not None]
        numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
        if name in _SUMMED:
            result[name] = round(sum(numbers), 3)
        elif name in _SHARES:
            result[name] = round(sum(numbers) / len(numbers), 4) if numbers else 0.0
        elif name == "cosine_to_fp32":
            result[name] = min(numbers, default=None)
        elif numbers:
            result[name] = max(numbers)
        else:
            result[name] = "+".join(sorted({str(value) for value in values})) if values else None
    return result | {"processes": len(measured)}


def _start(address: str, shard: Shard, gpus: Sequence[str]) -> _Process:
    env = {name: value for name, value in os.environ.items() if not name.startswith(_PIPES)}
    if gpus:
        env["CUDA_VISIBLE_DEVICES"] = gpus[shard.number % len(gpus)]
    else:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        env.setdefault("OMP_NUM_THREADS", str(max(1, cores // shard.count)))
    command = [*worker_command(address), "--shard", str(shard)]
    process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    return _Process(shard.number, process)


def _read(one: _Process, tell: Callable[[], None]) -> None:
    assert one.process.stdout is not None
    for line in one.process.stdout:
        try:
            message = json.loads(line)
        except ValueError:  # of a library that prints
            sys.stderr.write(line)
            continue
        if "progress" in message:
            one.progress = tuple(message["progress"])
            tell()
        elif "measured" in message:
            one.measured = message["measured"]
        elif "failed" in message:
            one.failure = message["failed"], message["permanent"]


def _together(manifest: WorkManifest, processes: Sequence[_Process], started: float) -> Progress:
    known = [one.progress for one in processes if one.progress]
    sums = [sum(values) for values in zip(*known, strict=True)]
    items, reused, todo_tokens, done_texts, done_tokens, checkpoints = sums
    # Until all have told what they have to do, the whole is not known; the bar must not reach its end before.
    todo_tokens = todo_tokens if len(known) == len(processes) else max(todo_tokens, manifest.token_count)
    return Progress(
        items, reused, todo_tokens, done_texts, done_tokens, checkpoints, started=started, embedding_started=started
    )


def _check(processes: Sequence[_Process]) -> None:
    failures = []
    for one in processes:
        code = one.process.returncode
        if code == 0 and one.measured is not None:
            continue
        killed = f"was killed by signal {-code}; did the pod or machine run out of memory?" if code < 0 else ""
        message, permanent = one.failure or (killed or f"ended with status {code}", False)
        failures.append((f"process {one.number + 1} of {len(processes)}: {message}", permanent))
    if failures:
        text = "\n".join(message for message, _ in failures)
        raise (PermanentError if any(permanent for _, permanent in failures) else TransientError)(text)


def shard_of(text: str) -> Shard:
    """Read a shard as the command line has it, such as `0/2`.

    Raises:
        ValueError: It is none.
    """
    number, _, count = text.partition("/")
    shard = Shard(int(number), int(count))
    if not 0 <= shard.number < shard.count:
        raise ValueError(f"a shard such as 0/2, not {text}")
    return shard
