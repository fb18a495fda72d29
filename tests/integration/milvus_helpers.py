"""The standalone Milvus server as tests have it: killed, brought back, and with a small platform on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.integration.pipeline_helpers import Platform
from tests.production import services

TEXTS = {
    "refunds": "A refund may be paid within thirty days of the purchase, by the clerk of the branch.",
    "printers": "Printers are repaired by the workshop. Call extension 4417 before noon.",
    "invoices": "Invoices of March are kept in the blue cabinet until the auditors have gone.",
    "parking": "Bicycles are parked behind the boiler house, motor cars in the eastern yard.",
}


class Server:
    """The standalone server, which can be killed and comes back with what it had."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: Any = None
        self.uri = ""

    def start(self) -> None:
        port = self.uri.rpartition(":")[2]
        self._running = services.milvus(self._folder, port=int(port) if port else 0)
        self.uri = self._running.__enter__()

    def stop(self) -> None:
        self._running.__exit__(None, None, None)

    def kill(self) -> None:
        """Kill the server itself, not the program that started it."""
        for process in psutil.process_iter(["cmdline"]):
            if f"{self._folder}/milvus/bin/milvus" in (process.info["cmdline"] or ()):
                process.kill()
        self.stop()


@contextmanager
def started(folder: Path) -> Iterator[Server]:
    """Start a server whose data is in a folder; the tests that want it are skipped where its package is not there."""
    pytest.importorskip("milvus", reason="the package `milvus` with the standalone server is not installed")
    made = Server(folder)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def platform(folder: Path, server: Server, **index: Any) -> Platform:
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for name, text in TEXTS.items():
        (corpus / f"{name}.md").write_text(f"# {name.title()}\n\n{text}\n")
    settings = {"uri": server.uri, "lexical": False, "alias": folder.name.replace("-", "_"), "timeout_s": 90, **index}
    return Platform(folder / "rag", [{"name": "office", "kind": "files", "root": str(corpus)}], {"index": settings})
