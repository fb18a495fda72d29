"""What a resident worker and its clients say to each other: JSON objects, one a line, over a unix socket.

The client sends one request. The worker answers `accepted` or `stale` at once, and at the end of an accepted job how it
ended. A client that goes away takes its job with it.
"""

import json
import socket
from typing import Any, BinaryIO, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from rag_core.config import EmbeddingConfig

_LONGEST_LINE: Final = 1 << 20  # bytes


class ProtocolError(Exception):
    """What the other side sent is not a message of this protocol."""


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Request(_Message):
    """What a client asks for.

    Attributes:
        identity: As `files.identity`; a worker with another one is stale.
        idle_s: How long the worker is to stay after this request.
        manifest: Address of the manifest to embed; empty to load a model only.
        pipes: The Dagster Pipes variables of the job, for which a process of its own would have its environment.
        embedding: Whose model to load, without its key; for requests without a manifest.
    """

    identity: str
    idle_s: float
    manifest: str = ""
    pipes: dict[str, str] = {}
    embedding: EmbeddingConfig | None = None


class Answer(_Message):
    """What a worker says.

    Attributes:
        kind: `accepted`, `stale` (it goes away; start another), or how the job ended.
        message: Why it failed, in a sentence.
        pid: The worker's process.
        loads: How many models it has loaded since it started.
        rss_bytes: Its resident memory.
    """

    kind: Literal["accepted", "stale", "done", "permanent", "transient"]
    message: str = ""
    pid: int
    loads: int = 0
    rss_bytes: int = 0


def send(connection: socket.socket, message: Request | Answer) -> None:
    """Write a message.

    Raises:
        OSError: The other side is gone.
    """
    connection.sendall(message.model_dump_json(exclude_none=True).encode() + b"\n")


def read_answer(stream: BinaryIO) -> Answer | None:
    """Read a worker's next message; None at the end of the stream, or where it broke off.

    Raises:
        ProtocolError: It is no answer.
    """
    try:
        line = _read_line(stream)
        return Answer.model_validate_json(line) if line else None
    except ConnectionError:
        return None
    except ValidationError as error:
        raise ProtocolError(f"not an answer: {error}") from error


def read_request(stream: BinaryIO, own_identity: str) -> Request | None:
    """Read a client's request; None if the client has another identity, whatever else it says.

    Raises:
        ProtocolError: It is no request, or the client left before it sent one.
        OSError: Nothing came in time.
    """
    line = _read_line(stream)
    try:
        content: Any = json.loads(line)
    except ValueError as error:
        raise ProtocolError(f"not a request: {line[:100]!r}") from error
    if not isinstance(content, dict):
        raise ProtocolError(f"not a request: {line[:100]!r}")
    # A client of another version may have other fields.
    if isinstance(content.get("identity"), str) and content["identity"] != own_identity:
        return None
    try:
        return Request.model_validate(content)
    except ValidationError as error:
        raise ProtocolError(f"not a request: {error}") from error


def _read_line(stream: BinaryIO) -> bytes:
    """Read one line without its end; empty at the end of the stream, and for a line that was cut off there."""
    line = stream.readline(_LONGEST_LINE)
    if len(line) >= _LONGEST_LINE:
        raise ProtocolError(f"a line of more than {_LONGEST_LINE} bytes")
    return line[:-1] if line.endswith(b"\n") else b""
