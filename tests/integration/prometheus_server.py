"""A real Prometheus for tests, with the deployment's own rules, that scrapes what it is given every second."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.conftest import REPO

needs_prometheus = pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")
_START_S = 60.0


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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    options = [
        f"--config.file={path}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    log = folder / "prometheus.log"
    with log.open("w") as out:
        process = subprocess.Popen(["prometheus", *options], stdout=out, stderr=subprocess.STDOUT)
        prometheus = Prometheus(f"http://127.0.0.1:{port}")
        try:
            deadline = time.monotonic() + _START_S
            while not prometheus.is_ready():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, "prometheus did not start"
                time.sleep(0.05)
            yield prometheus
        finally:
            prometheus.close()
            process.terminate()
            process.wait(30)
