"""The embedding worker: `python -m rag_core.embedding.worker --manifest ADDRESS`.

A Dagster Pipes program that also runs by hand. Exit codes: 0 done and verified, 2 permanent failure, 75 transient
failure (`EX_TEMPFAIL`); the last line of stderr says what failed. It writes to the store and, while it works, to the
folder of temporary files; nowhere else.
"""

import argparse
import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

from dagster_pipes import PipesContext
from pydantic import SecretStr

from rag_core.config import EmbeddingConfig
from rag_core.embedding.encoder import Encoder, make_encoder
from rag_core.embedding.job import Progress, Shard, run_job, verify_manifest
from rag_core.embedding.manifest import WorkManifest, read_manifest
from rag_core.embedding.pipes import pipes_session, under_pipes
from rag_core.embedding.reports import write_report
from rag_core.embedding.shards import LinesReporter, run_shards, shard_of
from rag_core.errors import PermanentError, RagError, TransientError

EXIT_PERMANENT: Final = 2
EXIT_TRANSIENT: Final = 75
_LOG_EVERY_S: Final = 5.0
_PROGRESS_EVERY_S: Final = 1.0
_PR_SET_PDEATHSIG: Final = 1
_LOG: Final = logging.getLogger(__name__)


class Reporter(Protocol):
    """Where a job says how far it is, and what it measured."""

    def info(self, message: str) -> None:
        """Log a line."""

    def progress(self, progress: Progress) -> None:
        """Take note of a finished batch or checkpoint."""

    def done(self, measured: dict[str, Any]) -> None:
        """Take what the whole job measured."""


class PipesReporter:
    """Sends log lines, about every second a custom message `{"progress": [done, total]}` in tokens, and at the end one
    custom message `{"embedding": {...}}` to the orchestrator.
    """

    def __init__(self, pipes: PipesContext) -> None:
        self._pipes = pipes
        self._next = time.monotonic() + _LOG_EVERY_S
        self._next_progress = 0.0

    def info(self, message: str) -> None:
        """Send a log line."""
        self._pipes.log.info(message)

    def progress(self, progress: Progress) -> None:
        """Send how far the job is, if it is time."""
        if time.monotonic() >= self._next_progress or progress.done_tokens >= progress.todo_tokens:
            self._next_progress = time.monotonic() + _PROGRESS_EVERY_S
            self._pipes.report_custom_message({"progress": [progress.done_tokens, progress.todo_tokens]})
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _LOG_EVERY_S
            self.info(describe(progress))

    def done(self, measured: dict[str, Any]) -> None:
        """Send what was measured."""
        self._pipes.report_custom_message({"embedding": measured})


class _TerminalReporter:
    """Draws a bar on a terminal, else logs a line about every five seconds."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._next = time.monotonic() + _LOG_EVERY_S

    def info(self, message: str) -> None:
        _LOG.info(message)

    def progress(self, progress: Progress) -> None:
        if sys.stderr.isatty():
            self._draw(progress)
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + _LOG_EVERY_S
            self.info(describe(progress))

    def done(self, measured: dict[str, Any]) -> None:
        if self._bar is not None:
            self._bar.close()
        self.info("measured: " + ", ".join(f"{name}={value}" for name, value in measured.items()))

    def _draw(self, progress: Progress) -> None:
        from tqdm import tqdm  # type: ignore[import-untyped]

        if self._bar is None:
            self._bar = tqdm(total=progress.todo_tokens, unit="token", unit_scale=True, desc="embedding")
        self._bar.update(progress.done_tokens - self._bar.n)


def describe(progress: Progress) -> str:
    """Write one line of progress with rate and estimated time left."""
    eta = "" if progress.eta_s is None else f", about {progress.eta_s:.0f} s left"
    rate = progress.done_tokens / max(time.monotonic() - progress.embedding_started, 1e-9)
    return (
        f"embedded {progress.done_texts} of {progress.todo_count} texts ({progress.reused_count} reused), "
        f"{rate:.0f} tokens/s, {progress.checkpoints} checkpoints{eta}"
    )


def die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies, so that a killed run leaves no worker behind.

    The signal follows the parent's *thread*: a launcher must start the worker from the thread that waits for it.
    """
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the request took effect
        os.kill(os.getpid(), signal.SIGKILL)


def main(argv: list[str] | None = None) -> int:
    """Run the worker; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m rag_core.embedding.worker", description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", help="address of manifest.json; default: the Pipes extra `manifest`")
    parser.add_argument("--die-with-parent", action="store_true", help="stop when the process that started this dies")
    parser.add_argument("--report", action="store_true", help="write what was measured beside the manifest as well")
    parser.add_argument("--shard", type=shard_of, help="embed one share of the texts, such as 0/2; tell it in lines")
    arguments = parser.parse_args(argv)
    if arguments.die_with_parent:
        die_with_parent()
    signal.signal(signal.SIGTERM, _stop)
    # Under Pipes the log goes to the orchestrator as messages; stderr is left to warnings.
    level = logging.WARNING if under_pipes() or arguments.shard else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("sentence_transformers").setLevel(logging.WARNING)
    if arguments.shard is not None:
        return _run_shard(arguments.manifest, arguments.shard)
    try:
        with _reporter() as (reporter, extras), classified():
            address = arguments.manifest or extras.get("manifest")
            run_manifest(address, reporter, report=arguments.report, in_processes=True)
    except RagError as error:
        _LOG.debug("failed", exc_info=error)
        sys.stderr.write(" ".join(str(error).split()) + "\n")
        return EXIT_PERMANENT if isinstance(error, PermanentError) else EXIT_TRANSIENT
    return 0


def run_manifest(
    address: str | None,
    reporter: Reporter,
    make: Callable[[WorkManifest], Encoder] | None = None,
    *,
    report: bool = False,
    in_processes: bool = False,
) -> None:
    """Embed what a manifest lists, and report it.

    Args:
        address: What `write_manifest` returned.
        reporter: Is told of progress, and at the end of what was measured.
        make: Gives the encoder of a manifest, if any text is to be embedded; default: loads its model.
        report: Whether to write what was measured into the store as well, beside the manifest.
        in_processes: Whether `embedding.processes` is followed; else all is done in this process.

    Raises:
        PermanentError: No manifest, or as `run_job`.
        TransientError: As `run_job`.
    """
    if not address:
        raise PermanentError("no manifest: pass --manifest ADDRESS, or the Pipes extra `manifest`")
    manifest = read_manifest(address)
    reporter.info(f"{manifest.item_count} texts, {manifest.token_count} tokens, model {manifest.embedding.model}")
    if in_processes and (manifest.embedding.processes or 1) > 1:
        measured = _in_processes(address, manifest, reporter)
    else:
        measured = _in_this_process(manifest, reporter, make)
    if report:
        write_report(manifest, measured)
    reporter.info(
        f"done: {measured['embedded_count']} embedded, {measured['reused_count']} reused, all verified, "
        f"{measured['job_seconds']:.1f} s, {measured.get('tokens_per_s', 0):.0f} tokens/s"
    )
    reporter.done(measured)


def _in_this_process(
    manifest: WorkManifest,
    reporter: Reporter,
    make: Callable[[WorkManifest], Encoder] | None,
    shard: Shard | None = None,
) -> dict[str, Any]:
    load_seconds = 0.0

    def encoder() -> Encoder:
        nonlocal load_seconds
        started = time.perf_counter()
        made = make(manifest) if make else encoder_of(manifest.embedding)
        load_seconds = time.perf_counter() - started
        return made

    measured = run_job(manifest, encoder, reporter.progress, shard=shard)
    return measured | {"load_seconds": round(load_seconds, 3)}


def _in_processes(address: str, manifest: WorkManifest, reporter: Reporter) -> dict[str, Any]:
    count = manifest.embedding.processes or 1
    started = time.perf_counter()
    measured = run_shards(address, manifest, reporter.progress, count=count)
    verify_manifest(manifest, compact=True)
    return measured | {"job_seconds": round(time.perf_counter() - started, 3)}


def _run_shard(address: str, shard: Shard) -> int:
    reporter = LinesReporter()
    try:
        with classified():
            reporter.done(_in_this_process(read_manifest(address), reporter, None, shard))
    except RagError as error:
        permanent = isinstance(error, PermanentError)
        reporter.failed(" ".join(str(error).split()), permanent=permanent)
        return EXIT_PERMANENT if permanent else EXIT_TRANSIENT
    return 0


def _stop(_number: int, _frame: object) -> None:
    """End as a failure that another try gets past: as a container's first process, it would ignore the signal."""
    raise TransientError("the embedding worker was told to stop (SIGTERM); slices that it committed are kept")


def encoder_of(config: EmbeddingConfig) -> Encoder:
    """Make a manifest's encoder, with the key that only the environment holds.

    Raises:
        ConfigError: As `make_encoder`.
    """
    key = os.environ.get("RAG_EMBEDDING__API_KEY")
    return make_encoder(config.model_copy(update={"api_key": SecretStr(key)}) if key else config)


@contextmanager
def _reporter() -> Iterator[tuple[Reporter, dict[str, Any]]]:
    if not under_pipes():
        yield _TerminalReporter(), {}
        return
    with pipes_session() as pipes:
        yield PipesReporter(pipes), dict(pipes.extras)


@contextmanager
def classified() -> Iterator[None]:
    """Turn what the operating system says into a failure class; bugs keep their traceback and exit with 1."""
    try:
        yield
    except (MemoryError, OSError) as error:
        raise TransientError(f"embedding worker: {type(error).__name__}: {error}; run again") from error


if __name__ == "__main__":
    sys.exit(main())
