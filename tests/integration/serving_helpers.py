"""The real service in a thread, over an index that the real pipeline made."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from rag_core.config_loader import load_config
from serving.app import create_app
from serving.runtime import Runtime
from tests.integration.pipeline_helpers import Platform

READY_S = 120.0


@dataclass
class Served:
    """A running service."""

    url: str
    app: FastAPI
    platform: Platform
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def runtime(self) -> Runtime:
        runtime: Runtime = self.app.state.runtime
        return runtime

    def client(self, key: str | None = None, **options: Any) -> httpx.Client:
        """Return a client, of the caller with that key."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, **options)

    def search(self, question: str, key: str | None = None, **body: Any) -> httpx.Response:
        """Search once."""
        with self.client(key) as client:
            return client.post("/v1/search", json={"question": question, **body})

    def found(self, question: str, key: str | None = None, **body: Any) -> list[dict[str, Any]]:
        """Return the hits of a search that must succeed."""
        answer = self.search(question, key, **body)
        assert answer.status_code == 200, answer.text
        hits: list[dict[str, Any]] = answer.json()["hits"]
        return hits

    def ask(self, question: str, key: str | None = None, **body: Any) -> dict[str, Any]:
        """Return the answer to a question that must succeed."""
        message = {"role": "user", "content": question}
        with self.client(key) as client:
            answer = client.post("/v1/chat/completions", json={"model": "rag", "messages": [message], **body})
        assert answer.status_code == 200, answer.text
        result: dict[str, Any] = answer.json()
        return result


@contextmanager
def served(
    platform: Platform,
    serving: Mapping[str, Any] | None = None,
    *,
    env: Mapping[str, str] | None = None,
    ready: bool = True,
) -> Iterator[Served]:
    """Serve a platform's index.

    Args:
        platform: Indexed or not.
        serving: The section `serving`.
        env: Environment of the configuration, for secrets.
        ready: Whether to wait until it answers questions.
    """
    config = load_config(platform.config_path, env=dict(env or {})).config
    values = config.serving.model_dump() | {
        name: {**(config.serving.model_dump()[name] if isinstance(value, dict) else {}), **value}
        if isinstance(value, dict)
        else value
        for name, value in (serving or {}).items()
    }
    config = config.model_copy(update={"serving": type(config.serving).model_validate(values)})
    app = create_app(config)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, name="service")
    thread.start()
    try:
        wait_for(lambda: server.started or not thread.is_alive())
        assert thread.is_alive(), "the service did not start"
        port = server.servers[0].sockets[0].getsockname()[1]
        made = Served(f"http://127.0.0.1:{port}", app, platform)
        if ready:
            wait_for(lambda: httpx.get(f"{made.url}/readyz", timeout=30).status_code == 200)
        yield made
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive(), "the service does not end"


def wait_for(condition: Any, timeout_s: float = READY_S) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)
