"""Around every request: ID, headers, limit of the body, metrics and log, whatever becomes of it."""

import asyncio
import logging
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.serving.edge_helpers import BODY_BYTES, Edge, called

REQUESTS = "http_requests_total"
COUNT = "http_request_duration_seconds_count"
PATHS = [
    "/v1/things/7",
    "/v1/json",
    "/v1/raw",
    "/v1/broken",
    "/v1/refused",
    "/healthz",
    "/page/app.js",
    "/docs",
    "/",
    "/v1/no",
]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def shared() -> Edge:
    return Edge()


# --- headers


@settings(max_examples=60)
@given(
    path=st.sampled_from(PATHS) | st.from_regex(r"/[a-z0-9/._-]{0,20}", fullmatch=True),
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "FOO"]),
    body=st.sampled_from([b"", b"[", b'["a"]', b"x" * (BODY_BYTES + 1)]),
    request_id=st.none() | st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True),
)
def test_every_answer_has_an_id_and_the_headers_that_protect(
    shared: Edge, path: str, method: str, body: bytes, request_id: str | None
) -> None:
    async def ask() -> Any:
        async with shared.client() as client:
            return await client.request(
                method, path, content=body, headers={"X-Request-Id": request_id} if request_id else {}
            )

    answer = asyncio.run(ask())
    if request_id:
        assert answer.headers["x-request-id"] == request_id
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", answer.headers["x-request-id"])
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    if path.startswith("/v1/"):
        assert answer.headers["cache-control"] == "no-store"
    if len(body) > BODY_BYTES:
        assert answer.status_code == 413


@pytest.mark.anyio
async def test_an_answer_says_itself_how_long_it_may_be_kept() -> None:
    async with Edge().client() as client:
        assert (await client.get("/page/app.js")).headers["cache-control"] == "public, max-age=60"
        assert "cache-control" not in (await client.get("/healthz")).headers


@pytest.mark.anyio
@pytest.mark.parametrize("sent", ["a b", "x" * 65, "", "a\tb", "é", '"}{', "a/b"])
async def test_an_id_that_is_not_plain_is_replaced(sent: str) -> None:
    async with Edge().client() as client:
        answer = await client.get("/v1/things/7", headers={"X-Request-Id": sent.encode("latin-1")})
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])


@pytest.mark.anyio
async def test_the_id_is_known_in_routes_and_threads_and_two_requests_do_not_mix() -> None:
    async with Edge().client() as client:
        answers = await asyncio.gather(
            *(client.get("/v1/things/7", headers={"X-Request-Id": f"r{number}"}) for number in range(20))
        )
    for number, answer in enumerate(answers):
        assert set(answer.json().values()) == {f"r{number}"}


# --- bodies


@given(
    sizes=st.lists(st.integers(0, BODY_BYTES), max_size=6),
    route=st.sampled_from(["/v1/json", "/v1/raw"]),
    announced=st.booleans(),
)
def test_a_body_is_read_up_to_the_limit_however_it_comes(
    shared: Edge, sizes: list[int], route: str, announced: bool
) -> None:
    parts = [b"x" * size for size in sizes]
    if route == "/v1/json":
        parts = [b'["', *parts, b'"]']
    total = sum(map(len, parts))

    async def stream() -> Any:
        for part in parts:
            yield part

    async def ask() -> Any:
        async with shared.client() as client:
            return await client.post(
                route,
                content=b"".join(parts) if announced else stream(),
                headers={"Content-Type": "application/json"},
            )

    answer = asyncio.run(ask())
    if total > BODY_BYTES:
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "body_too_large"
        assert answer.json()["error"]["type"] == "invalid_request_error"
    else:
        assert (answer.status_code, answer.json()) == (200, sum(sizes))


@pytest.mark.anyio
@pytest.mark.parametrize("length", ["-1", "abc", "1e9", "9" * 30])
async def test_a_strange_length_lets_nothing_pass(length: str) -> None:
    edge, sent = Edge(), []
    body = [{"type": "http.request", "body": b"x" * 600, "more_body": True}] * 3

    async def receive() -> Any:
        return body.pop()

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-length", length.encode())]
    await called(edge.app, "/v1/raw", receive=receive, send=send, method="POST", headers=headers)
    assert sent[0]["status"] == 413


# --- failures


@pytest.mark.anyio
async def test_an_unexpected_error_is_said_in_the_one_shape_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    edge = Edge()
    async with edge.client() as client:
        answer = await client.get("/v1/broken", headers={"X-Request-Id": "r1"})
    assert answer.status_code == 500
    error = answer.json()["error"]
    assert (error["code"], error["type"]) == ("internal_error", "api_error")
    assert "r1" in error["message"]
    assert "secret" not in answer.text
    assert edge.value(REQUESTS, route="/v1/broken", method="GET", status="500") == 1
    assert any(record.exc_info for record in caplog.records)


@pytest.mark.anyio
async def test_an_answer_that_breaks_off_is_an_error_and_does_not_look_complete() -> None:
    edge, sent = Edge(), []

    async def send(message: Any) -> None:
        sent.append(message)

    with pytest.raises(ValueError, match="secret"):
        await called(edge.app, "/v1/half", receive=asyncio.Event().wait, send=send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[-1]["more_body"]
    assert edge.value(REQUESTS, route="/v1/half", method="GET", status="500") == 1


@pytest.mark.anyio
async def test_a_refusal_keeps_its_own_headers() -> None:
    async with Edge().client() as client:
        answer = await client.get("/v1/refused")
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 2


# --- metrics and log


@pytest.mark.anyio
async def test_routes_are_counted_by_template() -> None:
    edge = Edge()
    async with edge.client() as client:
        for number in range(3):
            await client.get(f"/v1/things/{number}?q=secret")
        await client.get("/wp-admin")
        await client.delete("/v1/json")
        await client.request("BREW", "/v1/json")
    assert edge.value(REQUESTS, route="/v1/things/{thing_id}", method="GET", status="200") == 3
    assert edge.value(COUNT, route="/v1/things/{thing_id}") == 3
    assert edge.value(REQUESTS, route="unmatched", method="GET", status="404") == 1
    assert edge.value(REQUESTS, route="/v1/json", method="DELETE", status="405") == 1
    assert edge.value(REQUESTS, route="/v1/json", method="OTHER", status="405") == 1


@pytest.mark.anyio
async def test_a_stream_is_counted_with_its_last_byte() -> None:
    edge, sent, first = Edge(), [], asyncio.Event()

    async def send(message: Any) -> None:
        sent.append(message)
        if message.get("body"):
            first.set()

    task = asyncio.create_task(called(edge.app, "/v1/stream", receive=asyncio.Event().wait, send=send))
    await first.wait()
    assert edge.value(COUNT, route="/v1/stream") is None
    edge.gate.set()
    await task
    assert b"".join(message.get("body", b"") for message in sent) == b"data: one\n\ndata: two\n\n"
    assert edge.value(REQUESTS, route="/v1/stream", method="GET", status="200") == 1
    assert edge.value(COUNT, route="/v1/stream") == 1


@pytest.mark.anyio
@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
async def test_a_client_that_goes_away_is_status_499(spec_version: str, caplog: pytest.LogCaptureFixture) -> None:
    edge, gone = Edge(), asyncio.Event()

    async def receive() -> Any:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if gone.is_set() and spec_version == "2.4":
            raise OSError("the client is gone")
        if message.get("body"):
            gone.set()
            if spec_version == "2.4":  # servers of before do not fail to send; the app listens, and stops by itself
                edge.gate.set()

    asgi = {"version": "3.0", "spec_version": spec_version}
    await called(edge.app, "/v1/stream", receive=receive, send=send, asgi=asgi)
    assert edge.value(REQUESTS, route="/v1/stream", method="GET", status="499") == 1
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.anyio
async def test_the_log_says_who_asked_which_route_and_nothing_of_what(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="rag.http")
    async with Edge().client() as client:
        await client.get("/v1/things/salaries?q=secret")
        await client.post("/v1/json", json=["secret"])
        await client.get("/healthz")
    lines = [record.__dict__ for record in caplog.records if record.name == "rag.http"]
    assert [(line["method"], line["route"], line["status"], line["caller"]) for line in lines] == [
        ("GET", "/v1/things/{thing_id}", 200, "key:ci"),
        ("POST", "/v1/json", 200, None),
    ]
    assert all(line["seconds"] >= 0 for line in lines)
    assert not any(word in str(line) for line in lines for word in ("secret", "salaries"))


# --- a service that is open


@pytest.mark.anyio
@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:8080", "[::1]:8080", "LOCALHOST"])
async def test_an_open_service_answers_to_its_own_name(host: str) -> None:
    async with Edge(local_only=True).client() as client:
        assert (await client.get("/healthz", headers={"Host": host})).status_code == 200


@pytest.mark.anyio
@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8080", "", "[", "10.0.0.1"]
)
async def test_an_open_service_answers_to_no_other(host: str) -> None:
    edge = Edge(local_only=True)
    async with edge.client() as client:
        answer = await client.get("/v1/things/7", headers={"Host": host})
    assert (answer.status_code, answer.json()["error"]["code"]) == (421, "unknown_host")
    async with Edge().client() as client:
        assert (await client.get("/v1/things/7", headers={"Host": host})).status_code == 200


@pytest.mark.anyio
async def test_the_latency_of_searches_is_that_of_searches_that_were_answered() -> None:
    edge = Edge()

    @edge.app.post("/v1/search")
    async def search(body: list[str]) -> int:
        return len(body)

    async with edge.client() as client:
        assert (await client.post("/v1/search", json=["a"])).status_code == 200
        assert (await client.post("/v1/search", json={})).status_code == 422
        assert (await client.post("/v1/json", json=["a"])).status_code == 200
    assert edge.value("search_latency_seconds_count") == 1
