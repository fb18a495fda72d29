"""The OpenAI-compatible encoder and worker against a real HTTP server that misbehaves on demand."""

import contextlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import SecretStr

from rag_core import ids
from rag_core.config import EmbeddingConfig
from rag_core.embedding.cache import VectorCache
from rag_core.embedding.encoder import Encoder, make_encoder
from rag_core.embedding.launch import worker_command, worker_env
from rag_core.embedding.manifest import ITEMS, write_manifest
from rag_core.embedding.model import resolve_model
from rag_core.errors import PermanentError, TransientError
from rag_core.tables.store import Store

DIM = 4


def vector_of(text: str) -> list[float]:
    """A vector that only this text has; not of unit length."""
    rng = np.random.default_rng(int(ids.text_hash(text)[:8], 16))
    return [float(x) for x in rng.standard_normal(DIM) * 3]


def unit_of(texts: list[str]) -> np.ndarray:
    vectors = np.array([vector_of(text) for text in texts])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@dataclass
class Endpoint:
    """What the server is to answer next, and what it saw."""

    base_url: str = ""
    failures: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    always: int = 0
    code: str | None = None
    delay_s: float = 0.0
    dim: int = DIM
    drop: int = 0
    repeat_index: bool = False
    not_json: bool = False
    zero: bool = False
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def _handler(endpoint: Endpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with endpoint.lock:
                endpoint.requests.append(body)
                endpoint.keys.append(self.headers.get("authorization", ""))
                endpoint.times.append(time.monotonic())
                endpoint.in_flight += 1
                endpoint.most_in_flight = max(endpoint.most_in_flight, endpoint.in_flight)
                failure = endpoint.failures.pop(0) if endpoint.failures else (endpoint.always, {})
            time.sleep(endpoint.delay_s)
            with endpoint.lock:
                endpoint.in_flight -= 1
            if self.path != "/v1/embeddings":
                failure = (404, {})
            with contextlib.suppress(BrokenPipeError):  # the client gave up waiting
                self._answer(body["input"], *failure)

        def _answer(self, texts: list[str], status: int, headers: dict[str, str]) -> None:
            data: Any = {"error": {"message": "told to fail", "code": endpoint.code}}
            if not status:
                rows = [
                    {"object": "embedding", "index": i, "embedding": ([0.0] * DIM if endpoint.zero else vector_of(t))}
                    for i, t in enumerate(texts)
                ]
                for row in rows:
                    row["embedding"] = (row["embedding"] * 2)[: endpoint.dim]
                if endpoint.repeat_index:
                    rows[-1]["index"] = 0
                rows = rows[endpoint.drop :][::-1]  # never in the order of the request
                data = {"object": "list", "data": rows, "model": "m", "usage": {"total_tokens": 7, "prompt_tokens": 7}}
            payload = b"<html>" if endpoint.not_json else json.dumps(data).encode()
            self.send_response(status or 200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(payload)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(payload)

    return Handler


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    state = Endpoint()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    server.daemon_threads = True
    state.base_url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()


def configured(endpoint: Endpoint, **settings: Any) -> EmbeddingConfig:
    values = {"backend": "openai", "model": "m", "base_url": endpoint.base_url, "dim": DIM, "max_retries": 2}
    return EmbeddingConfig(**values | settings)


def encoder_for(endpoint: Endpoint, **settings: Any) -> Encoder:
    return make_encoder(configured(endpoint, **settings))


TEXTS = [f"text {n}" for n in range(25)]


def test_batches_in_input_order_with_bounded_concurrency(endpoint: Endpoint) -> None:
    endpoint.delay_s = 0.05
    encoder = encoder_for(endpoint, request_batch=2, concurrency=3, api_key=SecretStr("k1"), passage_prefix="p: ")
    seen: list[int] = []
    got = encoder.embed(TEXTS, "passage", on_batch=lambda texts, _: seen.append(texts))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, unit_of([f"p: {text}" for text in TEXTS]), atol=1e-6)
    assert sum(seen) == 25
    assert len(endpoint.requests) == encoder.stats.batches == 13
    assert max(len(request["input"]) for request in endpoint.requests) == 2
    assert 1 < endpoint.most_in_flight <= 3
    assert set(endpoint.keys) == {"Bearer k1"}
    assert encoder.stats.tokens == 13 * 7
    np.testing.assert_allclose(encoder.embed(["q"], "query"), unit_of(["q"]), atol=1e-6)
    assert encoder.embed([], "query").shape == (0, DIM)


@pytest.mark.parametrize("form", ["seconds", "date", "milliseconds"])
def test_retry_after_is_honoured(endpoint: Endpoint, form: str) -> None:
    wait = {
        "seconds": {"Retry-After": "1"},
        "date": {"Retry-After": formatdate(time.time() + 2, usegmt=True)},  # whole seconds: one to two from now
        "milliseconds": {"retry-after-ms": "900", "Retry-After": "60"},
    }[form]
    endpoint.failures = [(429, wait)]
    encoder = encoder_for(endpoint)
    np.testing.assert_allclose(encoder.embed(["a"], "passage"), unit_of(["a"]), atol=1e-6)
    assert encoder.stats.retries == 1
    assert 0.85 <= endpoint.times[1] - endpoint.times[0] < 5


def test_server_errors_pass(endpoint: Endpoint) -> None:
    endpoint.failures = [(500, {}), (503, {})]
    encoder = encoder_for(endpoint)
    np.testing.assert_allclose(encoder.embed(["a"], "passage"), unit_of(["a"]), atol=1e-6)
    assert encoder.stats.retries == 2


def test_errors_that_stay_are_transient_after_the_last_try(endpoint: Endpoint) -> None:
    endpoint.always = 500
    with pytest.raises(TransientError, match="2 tries failed") as caught:
        encoder_for(endpoint, max_retries=1).embed(["a"], "passage")
    assert endpoint.base_url in str(caught.value)
    assert len(endpoint.requests) == 2


def test_one_failed_request_stops_the_waiting_ones(endpoint: Endpoint) -> None:
    endpoint.failures = [(429, {"Retry-After": "200"}), (400, {})]
    started = time.monotonic()
    with pytest.raises(PermanentError):
        encoder_for(endpoint, request_batch=1, concurrency=2).embed(["a", "b"], "passage")
    assert time.monotonic() - started < 20


def test_a_very_long_wait_is_left_to_the_next_run(endpoint: Endpoint) -> None:
    endpoint.failures = [(429, {"Retry-After": "86400"})]
    with pytest.raises(TransientError, match="1 tries failed"):
        encoder_for(endpoint).embed(["a"], "passage")


def test_slow_answers_time_out(endpoint: Endpoint) -> None:
    endpoint.delay_s = 1.5
    with pytest.raises(TransientError, match="timed out"):
        encoder_for(endpoint, timeout_s=0.2, max_retries=0).embed(["a"], "passage")


def test_nobody_listening_is_transient() -> None:
    closed = Endpoint(base_url="http://127.0.0.1:9/v1")
    with pytest.raises(TransientError, match=r"127\.0\.0\.1:9"):
        encoder_for(closed, max_retries=0).embed(["a"], "passage")


@pytest.mark.parametrize(
    ("status", "advice"),
    [(400, "max_tokens"), (401, "RAG_EMBEDDING__API_KEY"), (404, "base_url"), (413, "request_batch")],
)
def test_refusals_are_permanent_with_advice(endpoint: Endpoint, status: int, advice: str) -> None:
    endpoint.always = status
    with pytest.raises(PermanentError, match=advice) as caught:
        encoder_for(endpoint).embed(["a"], "passage")
    assert endpoint.base_url in str(caught.value)
    assert len(endpoint.requests) == 1


def test_an_exhausted_quota_is_not_waited_for(endpoint: Endpoint) -> None:
    endpoint.always, endpoint.code = 429, "insufficient_quota"
    with pytest.raises(PermanentError, match="429"):
        encoder_for(endpoint).embed(["a"], "passage")
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    ("fault", "match"),
    [
        ({"dim": 3}, r"3 dimensions; set embedding\.dim"),
        ({"drop": 1}, "1 vectors for 2 texts"),
        ({"repeat_index": True}, "indices that repeat"),
        ({"zero": True}, "zero or not finite"),
        ({"not_json": True}, "not an OpenAI embeddings response"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_answers_that_are_not_vectors_are_permanent(endpoint: Endpoint, fault: dict[str, Any], match: str) -> None:
    for name, value in fault.items():
        setattr(endpoint, name, value)
    with pytest.raises(PermanentError, match=match):
        encoder_for(endpoint).embed(["a", "b"], "passage")


def test_worker_with_the_key_from_its_environment(endpoint: Endpoint, tmp_path: Path) -> None:
    config = configured(endpoint, api_key=SecretStr("k2"))
    spec, store = resolve_model(config), Store(str(tmp_path))
    columns = [[ids.text_hash(t) for t in TEXTS], TEXTS, [2] * len(TEXTS)]
    batch = pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, ITEMS, strict=True)], schema=ITEMS)
    address = write_manifest(store, config, spec, [batch], "run")
    assert address is not None
    command, env = worker_command(address), os.environ | worker_env(config)
    endpoint.always = 401
    refused = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 2
    assert "RAG_EMBEDDING__API_KEY" in refused.stderr.splitlines()[-1]
    endpoint.always = 0
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert set(endpoint.keys) == {"Bearer k2"}
    found, vectors = VectorCache(store).lookup(spec.fingerprint, [ids.text_hash(text) for text in TEXTS])
    assert len(found) == len(TEXTS)
    np.testing.assert_allclose(vectors, unit_of(TEXTS), atol=1e-6)
