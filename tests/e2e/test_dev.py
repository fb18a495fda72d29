"""`rag dev`: the Dagster UI comes up with every asset, and a signal takes all of it down again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from rag_assets.launcher.files import ZygoteFiles
from rag_core.index.lite_files import is_locked
from tests.conftest import REPO
from tests.integration.pipeline_helpers import Platform
from tests.ports import free_port

pytestmark = [pytest.mark.milvus, pytest.mark.slow]

_ASSETS = "{ assetNodes { assetKey { path } groupName isPartitioned } }"


def ask(port: int, query: str, deadline: float) -> list[dict]:
    while True:
        try:
            answer = httpx.post(f"http://127.0.0.1:{port}/graphql", json={"query": query}, timeout=5).json()
            if answer["data"]["assetNodes"]:
                return answer["data"]["assetNodes"]
        except (httpx.HTTPError, KeyError, ValueError):
            pass
        assert time.monotonic() < deadline, "the UI did not come up"
        time.sleep(1)


def is_answering(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def wait_for(condition: Callable[[], bool], deadline: float) -> None:
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.1)


def test_ui_starts_and_stops_as_a_whole(tmp_path: Path) -> None:
    source = {"name": "handbook", "kind": "files", "root": str(REPO / "examples" / "corpus")}
    port, serving_port = free_port(), free_port()
    platform = Platform(tmp_path / "platform", [source], {"serving": {"port": serving_port}})
    log = (tmp_path / "dev.log").open("w")
    environment = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
    dev = subprocess.Popen(
        [sys.executable, "-m", "rag_assets.cli", "dev", "--port", str(port)],
        env={**environment, "RAG_CONFIG": str(platform.config_path)},
        cwd=REPO,
        stdout=log,
        stderr=log,
        # As a background job of a shell: SIGINT is ignored when the process starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),  # noqa: PLW1509 -- this process has one thread
    )
    try:
        nodes = ask(port, _ASSETS, time.monotonic() + 90)
        assert {node["assetKey"]["path"][0]: node["isPartitioned"] for node in nodes} == {
            "documents": True,
            "chunks": True,
            "embeddings": True,
            "index_partitions": True,
            "retrieval_eval": False,
            "index_verdict": False,
            "published_index": False,
        }
        children = psutil.Process(dev.pid).children(recursive=True)
        files = ZygoteFiles(platform.root / "data" / "dagster")
        wait_for(files.socket.exists, time.monotonic() + 120)
        wait_for(lambda: is_answering(f"http://127.0.0.1:{serving_port}/"), time.monotonic() + 60)
        dev.terminate()
        dev.wait(60)
        assert not is_locked(files.zygote_lock), "the zygote is left behind"
        assert not psutil.wait_procs(children, timeout=30)[1], "processes are left behind"
        assert "Warning" not in (tmp_path / "dev.log").read_text()
    finally:
        dev.kill()
        log.close()
        platform.stop()
