"""The running platform, as a user starts it, and what looks into its index from outside while it works."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import psutil
import yaml

from benchmarks.freshness_changes import FILES, RECORDS, Change, Corpus
from benchmarks.workspace import environment
from rag_core.config import RagConfig
from rag_core.config_loader import load_config
from rag_core.errors import RagError
from rag_core.index import schema
from rag_core.index.client import connect
from rag_core.index.lite_server import lite_files, stop
from rag_core.stages.publication import latest_manifest
from rag_core.tables.store import Store

_LOOK_EVERY_S: Final = 0.5
_IDS_AT_ONCE: Final = 200

PROCESSES: Final[dict[str, Callable[[list[str]], bool]]] = {
    "daemon": lambda command: "dagster._daemon" in command,
    "code server": lambda command: "code-server" in command or ("api" in command and "grpc" in command),
    "embedding worker": lambda command: any("rag_core.embedding" in part for part in command),
    "Milvus Lite server": lambda command: "milvus_lite" in " ".join(command) and "server" in command,
}
"""How the parts of the platform are told by their command lines; runs are told by their parent."""


class Platform:
    """`rag dev` in a folder of its own."""

    def __init__(self, root: Path, corpus: Corpus, *, port: int, settings: dict[str, Any] | None = None) -> None:
        self.root, self.path, self._port = root, root / "rag.yaml", port
        sources = [
            {"name": RECORDS, "kind": "jsonl", "root": str(corpus.records.parent)},
            {"name": FILES, "kind": "files", "root": str(corpus.files)},
        ]
        reports = {"reports_url": f"http://127.0.0.1:{port + 80}"}
        content = {"store": {"root": "./data"}, "sources": sources, "quality": reports, **(settings or {})}
        self.path.write_text(yaml.safe_dump(content))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> RagConfig:
        return load_config(self.path).config

    @property
    def store(self) -> Store:
        return Store.of(self.config.store)

    def start(self) -> None:
        """Start the platform; its output goes to a file."""
        command = [sys.executable, "-m", "rag_assets.cli", "dev", "--port", str(self._port)]
        log = (self.root / "dev.log").open("ab")
        self._process = subprocess.Popen(command, env=environment(self.path), stdout=log, stderr=log)

    def stop(self) -> None:
        """Stop the platform as Ctrl-C does, and the local Milvus."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
        stop(lite_files(self.store))

    def wait_until_served(self, timeout_s: float) -> float:
        """Wait for the first publication; returns the seconds."""
        began = time.monotonic()
        while latest_manifest(self.store) is None:
            if time.monotonic() - began > timeout_s:
                raise SystemExit(f"nothing was published within {timeout_s:.0f} s; see {self.root / 'dev.log'}")
            time.sleep(1)
        return time.monotonic() - began

    def rag(self, *arguments: str) -> str:
        """Run a command as a user would, and return what it prints."""
        command = [sys.executable, "-m", "rag_assets.cli", *arguments]
        done = subprocess.run(command, env=environment(self.path), capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    def kill(self, what: str) -> int | None:
        """Kill a part of the platform with SIGKILL; returns its process number, or None if there is none now."""
        for process in psutil.process_iter(["cmdline", "environ", "ppid"]):
            if not self._is_ours(process):
                continue
            found = self._is_run(process) if what == "run" else PROCESSES[what](process.info["cmdline"] or [])
            if found:
                os.kill(process.pid, signal.SIGKILL)
                return process.pid
        return None

    def _is_ours(self, process: psutil.Process) -> bool:
        variables = process.info["environ"] or {}
        return variables.get("RAG_CONFIG") == str(self.path) or str(self.root) in " ".join(
            process.info["cmdline"] or []
        )

    def _is_run(self, process: psutil.Process) -> bool:
        """Runs are forked by the zygote, and have its command line."""
        command = process.info["cmdline"] or []
        if not any("zygote" in part for part in command):
            return False
        try:
            parent = psutil.Process(process.info["ppid"]).cmdline()
        except psutil.NoSuchProcess:
            return False
        return any("zygote" in part for part in parent)


class Prober:
    """Looks for what changes must bring about, from outside: by queries to Milvus, at strong consistency."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._watched: list[Change] = []
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="prober", daemon=True)
        self.failures = 0

    def __enter__(self) -> "Prober":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def watch(self, changes: Sequence[Change]) -> None:
        """Watch for changes that were made."""
        with self._lock:
            self._watched += changes

    @property
    def waiting(self) -> list[Change]:
        """Changes that have not arrived."""
        with self._lock:
            return [change for change in self._watched if change.seen_at is None]

    def _watch(self) -> None:
        while not self._ended.is_set():
            try:
                with connect(self._platform.config.index, self._platform.store) as client:
                    manifest = latest_manifest(self._platform.store)
                    while manifest is not None and not self._ended.wait(_LOOK_EVERY_S):
                        self._look(client, manifest.collection)
            except RagError:  # the server was killed; the next connection starts another
                self.failures += 1
                self._ended.wait(_LOOK_EVERY_S)

    def _look(self, client: Any, collection: str) -> None:
        waiting = self.waiting
        wanted = sorted({one for change in waiting for one in (*change.present, *change.absent)})
        if not wanted:
            return
        texts: dict[str, list[str]] = {}
        for start in range(0, len(wanted), _IDS_AT_ONCE):
            some = schema.any_of("doc_id", wanted[start : start + _IDS_AT_ONCE])
            for row in client._query(collection, None, some, ("doc_id", "text")):
                texts.setdefault(row["doc_id"], []).append(row["text"])
        now = time.time()
        for change in waiting:
            held = all(any(said in text for text in texts.get(one, ())) for one, said in change.present.items())
            if held and not any(one in texts for one in change.absent):
                change.seen_at = now
