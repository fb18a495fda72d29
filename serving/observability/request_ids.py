"""The ID of the request that is worked on: the caller's own if it is a plain one, else a new one."""

import re
from contextvars import ContextVar
from typing import Final
from uuid import uuid4

_PLAIN: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")

REQUEST_ID: Final[ContextVar[str | None]] = ContextVar("rag_request_id", default=None)
"""Set while a request is worked on, in its task and in the threads that it starts work in; for logs."""


def request_id_of(header: str | None) -> str:
    """Return the ID of a request: what `X-Request-Id` says, if it can be put into logs and headers as it is."""
    return header if header is not None and _PLAIN.fullmatch(header) else uuid4().hex
