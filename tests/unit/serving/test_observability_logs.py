"""Log lines: JSON with the request they belong to, and never a text that is not to be there."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rag_core.config_serving import ObservabilityConfig
from rag_core.errors import TransientError
from serving.caller import Caller
from serving.observability.audit import AuditLog
from serving.observability.logs import setup_logging
from serving.observability.request_ids import REQUEST_ID
from tests.unit.serving.edge_helpers import Edge

Lines = Callable[[], list[dict[str, Any]]]
LOG = logging.getLogger("rag.test")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def logs() -> Iterator[Callable[..., Lines]]:
    """Set logging up, and give back what it was before."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    levels = {name: logging.getLogger(name).level for name in ("rag", "serving", "uvicorn")}

    def set_up(**config: Any) -> Lines:
        stream = io.StringIO()
        setup_logging(ObservabilityConfig(**config), stream)
        return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]

    try:
        yield set_up
    finally:
        root.handlers = handlers
        root.setLevel(level)
        for name, old in levels.items():
            logging.getLogger(name).setLevel(old)


def test_a_line_is_an_object_with_time_level_logger_and_fields(logs: Callable[..., Lines]) -> None:
    lines = logs()
    LOG.info("cut %d\n of %s", 3, "é", extra={"chunks": 3, "ids": ["a"]})
    logging.getLogger("uvicorn.error").info("started")
    logging.getLogger("serving.index").info("switched")
    logging.getLogger("httpx").info("noise")
    logging.getLogger("httpx").warning("no noise")
    first, *others = lines()
    assert (first["event"], first["level"], first["logger"]) == ("cut 3\n of é", "info", "rag.test")
    assert (first["chunks"], first["ids"]) == (3, ["a"])
    assert first["at"].endswith("Z")
    assert "request_id" not in first
    assert [line["event"] for line in others] == ["started", "switched", "no noise"]


def test_texts_are_left_out(logs: Callable[..., Lines]) -> None:
    fields = {"question": "who?", "messages": ["who?"], "text": "Ann.", "quote": "Ann.", "doc_id": "d1"}
    for log_texts, expected in ((False, {"doc_id"}), (True, {"doc_id", "question", "messages"})):
        lines = logs(log_texts=log_texts)
        LOG.info("answered", extra=fields)
        (line,) = lines()
        assert set(line) & set(fields) == expected


def test_an_exception_is_said_by_kind_and_place_and_its_message_only_if_it_is_ours(logs: Callable[..., Lines]) -> None:
    def fail() -> None:
        try:
            raise ValueError("who earns what?")
        except ValueError as error:
            raise TransientError("Milvus does not answer") from error

    for log_texts in (False, True):
        lines = logs(log_texts=log_texts)
        try:
            fail()
        except TransientError:
            LOG.exception("a search failed")
        (line,) = lines()
        ours, theirs = line["exceptions"]
        assert (ours["type"], ours["message"]) == ("TransientError", "Milvus does not answer")
        assert theirs["type"] == "ValueError"
        assert ("message" in theirs) == log_texts
        assert ours["at"][-1].endswith(" fail")
        assert ("who earns what?" in json.dumps(line)) == log_texts


def test_setting_up_again_does_not_say_everything_twice(logs: Callable[..., Lines]) -> None:
    logs()
    lines = logs()
    LOG.info("once")
    assert len(lines()) == 1


@pytest.mark.anyio
async def test_lines_of_a_request_have_its_id(logs: Callable[..., Lines]) -> None:
    lines = logs()
    async with Edge().client() as client:
        await client.get("/v1/things/7?q=secret", headers={"X-Request-Id": "r1"})
        await client.get("/v1/broken", headers={"X-Request-Id": "r2"})
    assert REQUEST_ID.get() is None
    access, failure, failed = lines()
    assert (access["event"], access["request_id"], access["caller"]) == ("request", "r1", "key:ci")
    assert (access["method"], access["route"], access["status"]) == ("GET", "/v1/things/{thing_id}", 200)
    assert [failure["request_id"], failed["request_id"]] == ["r2", "r2"]
    assert (failed["status"], failed["level"]) == (500, "warning")
    assert failure["exceptions"][0]["type"] == "ValueError"
    assert "secret" not in json.dumps([access, failure, failed])


def test_the_audit_says_who_was_given_what_by_id(logs: Callable[..., Lines]) -> None:
    lines = logs()
    caller = Caller("user:ann", frozenset({"group:eng"}))
    AuditLog().record("search", caller, "r1", documents=["d1", "d2"], version="v3", answer=None)
    (line,) = lines()
    del line["at"]
    assert line == {
        "event": "search",
        "level": "info",
        "logger": "rag.audit",
        "caller": "user:ann",
        "request_id": "r1",
        "documents": ["d1", "d2"],
        "version": "v3",
        "answer": None,
    }
