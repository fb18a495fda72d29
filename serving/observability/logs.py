"""Logs: one JSON object a line on stderr, with the request that each belongs to, and without texts."""

import logging
import sys
import traceback
from collections.abc import Iterator
from typing import Any, Final, TextIO

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, Processor

from rag_core.config_serving import ObservabilityConfig
from rag_core.errors import RagError
from serving.observability.request_ids import REQUEST_ID

_OURS: Final = ("rag", "serving", "uvicorn")
_QUESTIONS: Final = frozenset({"question", "questions", "query", "history", "messages", "comment"})
_DOCUMENTS: Final = frozenset({"text", "texts", "quote", "passage", "passages"})
_FRAMES: Final = 20


def setup_logging(config: ObservabilityConfig, stream: TextIO | None = None) -> None:
    """Send everything that is logged in this process to one place.

    Loggers of ours and of the server tell what they do, all others warn only. Log with `logging`, and give fields by
    `extra`. Fields that hold text of documents are left out always, those that hold questions unless the configuration
    admits them; see `_exceptions` for what remains of an error.

    Args:
        config: Says whether logs may hold questions.
        stream: Where to write; default: stderr.
    """
    hidden = _DOCUMENTS if config.log_texts else _DOCUMENTS | _QUESTIONS
    shared: list[Processor] = [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        _context,
        lambda _logger, _name, event: {key: value for key, value in event.items() if key not in hidden},
        lambda _logger, _name, event: _exceptions(event, with_messages=config.log_texts),
    ]
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(default=str, ensure_ascii=False),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for name in _OURS:
        logging.getLogger(name).setLevel(logging.INFO)


def _context(_logger: Any, _name: str, event: EventDict) -> EventDict:
    """Add the request and the trace that a line belongs to."""
    request_id = REQUEST_ID.get()
    if request_id is not None:
        event.setdefault("request_id", request_id)
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        event["trace_id"] = trace.format_trace_id(span.trace_id)
    return event


def _exceptions(event: EventDict, *, with_messages: bool) -> EventDict:
    """Put an exception as data in place of its traceback.

    Messages of other people's exceptions often quote what they were given, which may be a question or a document. So
    only ours and those of the operating system are said, and of the others the kind and where they were raised.
    """
    found = event.pop("exc_info", None)
    error = found[1] if isinstance(found, tuple) else found
    if isinstance(error, BaseException):
        event["exceptions"] = list(_said(error, with_messages=with_messages))
    return event


def _said(error: BaseException, *, with_messages: bool) -> Iterator[dict[str, Any]]:
    """Yield an exception and those that it came from."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        frames = traceback.extract_tb(cause.__traceback__)[-_FRAMES:]
        said: dict[str, Any] = {"type": type(cause).__qualname__}
        if with_messages or isinstance(cause, RagError | OSError):
            said["message"] = str(cause)
        yield said | {"at": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]}
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
