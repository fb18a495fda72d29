"""What launcher and zygote say to each other: one line of JSON each way over a Unix socket, then it is closed."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

_LONGEST = 4 * 1024 * 1024  # an environment and an instance reference are some ten kilobytes

Operation = Literal["launch", "ping", "stop"]
Status = Literal["started", "ready", "stale", "stopping"]


@dataclass(frozen=True, slots=True)
class Request:
    """What a launcher asks for.

    Attributes:
        operation: `launch` a run, `ping`, or `stop`.
        digest: Of the code and configuration that a run must have; empty: any.
        run_id: The run.
        instance_ref: The Dagster instance, as Dagster serialises it.
        env: Environment of the run's process.
        cwd: Its working folder.
    """

    operation: Operation
    digest: str = ""
    run_id: str = ""
    instance_ref: str = ""
    env: dict[str, str] = field(default_factory=dict)
    cwd: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the zygote answers.

    Attributes:
        status: `started` (a run), `ready` (to a ping), `stale` (its code is older; it goes away), `stopping`.
        pid: Process of the run, or of the zygote.
    """

    status: Status
    pid: int = 0


def send(connection: socket.socket, message: Request | Reply) -> None:
    """Send one message."""
    connection.sendall(json.dumps(asdict(message)).encode() + b"\n")


def receive(connection: socket.socket) -> bytes:
    """Read one line.

    Raises:
        ConnectionError: The other side closed before its end, or it is longer than any message.
        TimeoutError: As the socket's time limit says.
    """
    parts = bytearray()
    while not parts.endswith(b"\n"):
        part = connection.recv(65_536)
        if not part or len(parts) > _LONGEST:
            raise ConnectionError(f"a message was cut off after {len(parts)} bytes")
        parts += part
    return bytes(parts)


@contextmanager
def short_address(path: Path) -> Iterator[str]:
    """Give a socket's path a form that fits into its address, which holds 107 bytes. Linux only."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
