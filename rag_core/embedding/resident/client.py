"""The clients' side of the resident worker: find it or start it, give it a job, wait."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from rag_core.config import EmbeddingConfig
from rag_core.embedding.launch import device_env, worker_env, worker_slots
from rag_core.embedding.resident.files import ResidentFiles, identity, resident_files, socket_address
from rag_core.embedding.resident.protocol import Answer, ProtocolError, Request, read_answer, send
from rag_core.errors import PermanentError, RagError, TransientError
from rag_core.index.lite_files import is_locked, last_lines, locked, try_lock
from rag_core.tables.store import Store

_START_S: Final = 60.0  # longer than an interpreter takes to start on a busy machine, and than a leaving one to be gone
_STARTS: Final = 4  # a stale worker, one that leaves at this moment, and some
_POLL_S: Final = 0.05
_PRESTART_S: Final = 20.0
_LOG_BYTES: Final = 1 << 20


def available(config: EmbeddingConfig) -> bool:
    """Whether jobs of a configuration go to a resident worker."""
    return config.kubernetes is None and config.worker_idle_s > 0 and hasattr(socket, "AF_UNIX")


def embed(
    store: Store, config: EmbeddingConfig, manifest: str, *, pipes: Mapping[str, str], idle_s: float | None = None
) -> Answer:
    """Have a manifest embedded, and wait for it.

    Args:
        store: Whose worker is used.
        config: For the worker's environment, and how many work at once.
        manifest: What `write_manifest` returned.
        pipes: `PipesSession.get_bootstrap_env_vars()`.
        idle_s: How long the worker stays afterwards; default `embedding.worker_idle_s`.

    Returns:
        The worker's answer; its kind is `done`.

    Raises:
        PermanentError: Another try cannot help.
        TransientError: It may; what was committed before is kept.
    """
    wanted = Request(
        identity="", idle_s=config.worker_idle_s if idle_s is None else idle_s, manifest=manifest, pipes=dict(pipes)
    )
    with _turn([resident_files(store, slot) for slot in range(worker_slots(config))]) as (slot, files):
        answer = _ask(files, wanted, _environment(config, slot))
    if answer is None:
        raise TransientError(
            f"the embedding worker died; texts that it committed are kept, and another one goes on. "
            f"Last lines of {files.log}:\n{last_lines(files.log, 5)}"
        )
    if answer.kind != "done":
        raise (PermanentError if answer.kind == "permanent" else TransientError)(answer.message)
    return answer


def prestart(store: Store, config: EmbeddingConfig) -> bool:
    """Start the store's worker and have it load the model, so that the first change does not wait for that.

    Returns once the worker has begun, in about a second.

    Returns:
        Whether it has; never raises, for a job starts its worker by itself.
    """
    if not available(config):
        return False
    wanted = Request(identity="", idle_s=config.worker_idle_s, embedding=config.model_copy(update={"api_key": None}))
    try:
        with _accepted(resident_files(store), wanted, _environment(config, 0), timeout_s=_PRESTART_S):
            return True
    except (RagError, OSError):
        return False


def stop(store: Store) -> int:
    """End the workers of a store, whatever they do.

    Returns:
        How many there were.
    """
    stopped = 0
    for alive in sorted(resident_files(store).alive.parent.glob("*.alive")):
        deadline = time.monotonic() + _START_S
        number = signal.SIGTERM
        running = is_locked(alive)
        stopped += running
        while running and time.monotonic() < deadline:
            with suppress(ProcessLookupError, ValueError, OSError):
                os.kill(int(alive.read_text()), number)
            time.sleep(_POLL_S)
            running = is_locked(alive)
    return stopped


def _ask(files: ResidentFiles, wanted: Request, environment: Mapping[str, str]) -> Answer | None:
    """Return how the job ended; None if the worker died."""
    with _accepted(files, wanted, environment) as stream:
        try:
            return read_answer(stream)
        except ProtocolError as error:
            raise TransientError(f"{files.socket}: {error}") from error


@contextmanager
def _turn(workers: Sequence[ResidentFiles]) -> Iterator[tuple[int, ResidentFiles]]:
    """Wait until one of the workers has no other client, and keep it for the block; the first ones are preferred."""
    workers[0].turn.parent.mkdir(parents=True, exist_ok=True)
    while True:
        for slot, files in enumerate(workers):
            descriptor = try_lock(files.turn)
            if descriptor is not None:
                try:
                    yield slot, files
                finally:
                    os.close(descriptor)
                return
        time.sleep(_POLL_S)


@contextmanager
def _accepted(
    files: ResidentFiles, wanted: Request, environment: Mapping[str, str], *, timeout_s: float | None = None
) -> Iterator[BinaryIO]:
    """Send a request to a worker that takes it, and give what it will say; closing it ends the job.

    Raises:
        TransientError: No worker starts, or none stays long enough to take the request.
        TimeoutError: The worker was busy for timeout_s.
    """
    request = wanted.model_copy(update={"identity": identity(environment)})
    for _ in range(_STARTS):
        with _connect(files, environment, request.idle_s) as connection, connection.makefile("rb") as stream:
            connection.settimeout(timeout_s)
            if _takes(connection, stream, request):
                yield stream
                return
    raise TransientError(
        f"no embedding worker takes the job at {files.socket}: {_STARTS} left before they did. "
        f"Last lines of {files.log}:\n{last_lines(files.log)}"
    )


def _takes(connection: socket.socket, stream: BinaryIO, request: Request) -> bool:
    """Send the request; False if the worker is stale (its answers may be of another version) or leaves just now."""
    try:
        send(connection, request)
        answer = read_answer(stream)
    except (ConnectionError, ProtocolError):
        return False
    return answer is not None and answer.kind == "accepted"


def _connect(files: ResidentFiles, environment: Mapping[str, str], idle_s: float) -> socket.socket:
    """Connect to the worker, starting it if there is none.

    Raises:
        TransientError: It does not come up; the message ends with the last lines of its log.
    """
    files.socket.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + _START_S
    with locked(files.start_lock, timeout_s=_START_S):
        while time.monotonic() < deadline:
            if not is_locked(files.alive):
                _spawn(files, environment, idle_s)
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                with socket_address(files.socket) as address:
                    connection.connect(address)
                return connection
            except (FileNotFoundError, ConnectionRefusedError):  # one that leaves is still about
                connection.close()
                time.sleep(_POLL_S)
            except BaseException:
                connection.close()
                raise
    raise TransientError(
        f"the embedding worker does not listen at {files.socket}; last lines of {files.log}:\n{last_lines(files.log)}"
    )


def _spawn(files: ResidentFiles, environment: Mapping[str, str], idle_s: float) -> None:
    if files.log.exists() and files.log.stat().st_size > _LOG_BYTES:
        files.log.replace(files.log.with_suffix(".log.1"))
    # fmt: off
    command = [sys.executable, "-m", "rag_core.embedding.resident",
               "--socket", str(files.socket), "--idle-s", str(idle_s)]
    # fmt: on
    package_root = str(Path(__file__).resolve().parents[3])
    python_path = os.pathsep.join(filter(None, [package_root, environment.get("PYTHONPATH")]))
    with files.log.open("ab") as log:
        # Its own session: a signal to the process group of the run that starts it must not take it from other runs.
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**environment, "PYTHONPATH": python_path},
            check=False,
            timeout=_START_S,
        )
    if done.returncode != 0:
        raise TransientError(
            f"the embedding worker did not start: status {done.returncode}. Last lines of {files.log}:\n"
            f"{last_lines(files.log)}"
        )


def _environment(config: EmbeddingConfig, slot: int) -> dict[str, str]:
    return {**os.environ, **worker_env(config), **device_env(config, slot)}
