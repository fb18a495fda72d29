"""A real Prometheus for tests, with the deployment's own rules, that scrapes what it is given every second."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.conftest import REPO
from tests.ports import free_port
from tests.production.services import process

needs_prometheus = pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")


class Prometheus:
    """Its HTTP API."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=30)

    def close(self) -> None:
        self._client.close()

    def get(self, path: str, **parameters: str) -> Any:
        """Ask the API for something that must succeed."""
        answer = self._client.get(f"/api/v1/{path}", params=parameters)
        body = answer.json()
        assert body["status"] == "success", f"{path} {parameters}: {body}"
        return body["data"]

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Evaluate an expression now; an error fails the test."""
        return list(self.get("query", query=expr)["result"])

    def is_ready(self) -> bool:
        try:
            return self._client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def running_prometheus(folder: Path, targets: Mapping[str, str]) -> Iterator[Prometheus]:
    """Start it with the deployment's configuration, whose jobs and targets are replaced.

    Args:
        folder: For its data.
        targets: Job -> host and port.
    """
    config = yaml.safe_load((REPO / "deploy" / "monitoring" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(REPO / "deploy" / "monitoring" / "rules" / "*.yml")]
    known = {job["job_name"]: job for job in config["scrape_configs"]}
    config["scrape_configs"] = [
        {**known[name], "static_configs": [{"targets": [address]}]} for name, address in targets.items()
    ]
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    port = free_port()
    options = [
        f"--config.file={path}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    prometheus = Prometheus(f"http://127.0.0.1:{port}")
    try:
        with process("prometheus", ["prometheus", *options], folder, prometheus.is_ready):
            yield prometheus
    finally:
        prometheus.close()
