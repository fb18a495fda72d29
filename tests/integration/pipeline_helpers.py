"""Run the real command line in a store of its own, and read back what it left."""

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from functools import cache
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
import yaml

from rag_assets import runner
from rag_core.config import RagConfig
from rag_core.config_loader import load_config
from rag_core.index.client import connect
from rag_core.index.lite_server import lite_files, stop
from rag_core.stages.publication import latest_manifest
from rag_core.tables.delta import TableSlice
from rag_core.tables.store import Store
from tests.integration import quick_sqlite, warm_rag  # noqa: F401 - importing the first is what counts
from tests.integration.warm_rag import WORKER_IDLE_S


@dataclass
class Platform:
    """A configuration and store in a folder."""

    root: Path
    sources: list[dict[str, Any]]
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        # Few measurements: these tests are about what is written, not about how well it is found.
        few = {"samples": 10, "known_items": 10}
        content = {"store": {"root": "./data"}, "buckets": 2, "sources": self.sources, "evaluation": few}
        content |= self.settings
        # Nor about how quick a busy machine is; tests of a Milvus that is slow have limits of their own.
        content["serving"] = {"retrieval": {"timeout_s": 60.0}} | self.settings.get("serving", {})
        self.config_path.write_text(yaml.safe_dump(content))
        resident = self.root / "data" / "work" / "resident"
        if not resident.is_symlink():
            resident.parent.mkdir(parents=True, exist_ok=True)
            resident.symlink_to(_worker_folder(), target_is_directory=True)

    @property
    def config_path(self) -> Path:
        return self.root / "rag.yaml"

    @property
    def config(self) -> RagConfig:
        return load_config(self.config_path).config

    @property
    def store(self) -> Store:
        return Store.of(self.config.store)

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of a command about this platform."""
        env = {**os.environ, "RAG_CONFIG": str(self.config_path), **more}
        env.pop("DAGSTER_HOME", None)
        return env

    def rag(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `rag` as a user would, in a process of its own, but spare it the imports."""
        return warm_rag.run(arguments, self.environment(**environment), timeout_s=300)

    def start(self, *arguments: str, **environment: str) -> ForkServerProcess:
        """Start `rag` in a process of its own, for a test that kills it."""
        return warm_rag.start(arguments, self.environment(**environment))

    def command(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `rag` as a user would, from nothing."""
        command = [sys.executable, "-m", "rag_assets.cli", *arguments]
        env = self.environment(**environment)
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)

    def run(self, *, accept_deletions: bool = False, rebuild: bool = False) -> dict[str, Any]:
        """Run the pipeline in this process, which spares the start of another, and return its figures."""
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("RAG_") or name == "DAGSTER_HOME"]:
                patch.delenv(name)
            patch.setenv("RAG_CONFIG", str(self.config_path))
            patch.setattr(runner, "_WORKER_IDLE_S", WORKER_IDLE_S)
            loaded = load_config(self.config_path)
            summary = runner.run_pipeline(loaded, accept_deletions=accept_deletions, rebuild=rebuild)
        assert not summary.failures, [failure.message for failure in summary.failures]
        return summary.to_dict()

    def tables(self) -> dict[str, list[tuple[Any, ...]]]:
        """Read what identifies the rows of every table, sorted."""
        columns = {
            "documents": ["doc_id", "doc_hash", "status"],
            "chunks": ["chunk_id", "row_hash"],
            "embeddings": ["chunk_id", "text_hash", "model_fingerprint"],
            "index_partitions": ["collection", "chunk_id", "row_hash", "model_fingerprint"],
        }
        return {
            name: sorted(tuple(row.values()) for row in TableSlice.newest(self.store, name).read(fields).to_pylist())
            for name, fields in columns.items()
        }

    def vectors(self) -> dict[str, list[float]]:
        """Read all vectors by chunk id."""
        rows = TableSlice.newest(self.store, "embeddings").read(["chunk_id", "vector"]).to_pylist()
        return {row["chunk_id"]: row["vector"] for row in rows}

    def milvus(self) -> tuple[int, list[str]]:
        """Ask Milvus for count(*) and for the listing of the published collection."""
        manifest = latest_manifest(self.store)
        assert manifest is not None
        with connect(self.config.index, self.store) as client:
            return client.count(manifest.collection), client.list_ids(manifest.collection)

    def stop(self) -> None:
        """Stop the local Milvus server and remove everything."""
        stop(lite_files(self.store))
        shutil.rmtree(self.root, ignore_errors=True)


@cache
def _worker_folder() -> Path:
    """Make the folder where all platforms of this process find the embedding worker: it loads its model once.

    A worker goes when its folder is gone.
    """
    folder = Path(tempfile.mkdtemp(prefix="rag-worker-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def search_json(platform: Platform, question: str, mode: str) -> list[dict[str, Any]]:
    """Search as a user would."""
    done = platform.rag("search", question, "--mode", mode, "--json")
    assert done.returncode == 0, done.stderr
    result: list[dict[str, Any]] = json.loads(done.stdout)
    return result
