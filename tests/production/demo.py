"""The same corpus through both shapes: what they hold and what they answer is compared, and the time is told."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml
from rich.console import Console
from rich.table import Table

from tests.conftest import REPO
from tests.ports import free_port
from tests.production import services

QUESTION = "How quickly must I report a security incident?"
_CORPUS = REPO / "examples" / "corpus"
_SHAPE = REPO / "deploy" / "demo"
# Scores that are equal within rounding may stand in another order: the two shapes compute in other batches.
_SAME_SCORE = 2e-3


@dataclass
class Shape:
    """A configuration with its environment, and what its commands took."""

    name: str
    env: dict[str, str]
    seconds: dict[str, float] = field(default_factory=dict)

    def rag(self, *arguments: str) -> str:
        """Run `rag` and return what it prints.

        Raises:
            CalledProcessError: It failed; its output was printed.
        """
        command = [sys.executable, "-m", "rag_assets.cli", *arguments]
        began = time.monotonic()
        done = subprocess.run(
            command, env=self.env, cwd=self.env["RAG_FOLDER"], capture_output=True, text=True, check=False
        )
        self.seconds.setdefault(" ".join(arguments[:1]), round(time.monotonic() - began, 1))
        if done.returncode:
            sys.stderr.write(f"{self.name}: rag {' '.join(arguments)}\n{done.stdout}{done.stderr}")
            done.check_returncode()
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """Run `rag` and read the JSON that it prints."""
        return json.loads(self.rag(*arguments, "--json"))

    def chunks(self) -> dict[str, str]:
        """Return the text of each chunk by its id."""
        lines = self.rag("inspect", "chunks", "--json").splitlines()
        return {row["chunk_id"]: row["text"] for row in map(json.loads, lines)}

    def hits(self, question: str) -> list[tuple[str, float]]:
        """Return the ids and scores of what a question finds by meaning."""
        return [(hit["chunk_id"], hit["score"]) for hit in self.json("search", question, "--mode", "dense")]


@contextmanager
def production(folder: Path, console: Console) -> Iterator[Shape]:
    """Run every service, with the example corpus in the source's bucket; gives the shape that is made of them."""
    with ExitStack() as stack:
        table = Table("service", "what it is", "address", "s", box=None, pad_edge=False, header_style="bold")

        def start(name: str, what: str, opened: Any) -> Any:
            began = time.monotonic()
            address = stack.enter_context(opened)
            table.add_row(name, what, address, f"{time.monotonic() - began:.1f}")
            return address

        logs = folder / "services"
        s3 = start("S3", "moto's server", services.s3_server(logs, ["rag", "company"]))
        services.upload(s3, "company", "handbook/", _CORPUS)
        spark = start("Spark Connect", "the server of pyspark", services.spark_connect(logs, env=services.AWS))
        postgres = start("Postgres", "Debian's", services.postgres(logs))
        redis = start("Redis", "Debian's", services.redis(logs))
        milvus = start("Milvus", "standalone 2.3.5, of the package milvus", services.milvus(logs))
        kubeconfig = start("Kubernetes", "a stand-in that runs containers as processes", services.kubernetes(logs))
        console.print(table)
        home = folder / "dagster"
        home.mkdir()
        shutil.copy(_SHAPE / "dagster.yaml", home)
        yield _shape("production", folder, {
            **services.AWS,
            "RAG_CONFIG": str(_SHAPE / "rag.yaml"),
            "DAGSTER_HOME": str(home),
            "DAGSTER_POSTGRES_URL": postgres,
            "RAG_STORE__S3__ENDPOINT_URL": s3,
            "RAG_SOURCES__handbook__ENDPOINT_URL": s3,
            "RAG_SPARK__REMOTE": spark,
            "RAG_INDEX__URI": milvus,
            "RAG_SERVING__CACHE__REDIS_URL": redis,
            "RAG_EMBEDDING__KUBERNETES__KUBECONFIG": kubeconfig,
        })  # fmt: skip


def laptop(folder: Path) -> Shape:
    """Return the shape of a laptop: the same source and partitions, everything else by default."""
    config = yaml.safe_load((_SHAPE / "rag.yaml").read_text())
    config = {
        "store": {"root": str(folder / "laptop")},
        "buckets": config["buckets"],
        "sources": [{"name": "handbook", "kind": "files", "root": str(_CORPUS)}],
        "index": {name: value for name, value in config["index"].items() if name not in ("uri", "lexical")},
    }
    path = folder / "laptop.yaml"
    path.write_text(yaml.safe_dump(config))
    return _shape("laptop", folder, {"RAG_CONFIG": str(path)})


def _shape(name: str, folder: Path, env: Mapping[str, str]) -> Shape:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAG_", "DAGSTER_", "AWS_"))}
    return Shape(name, {**kept, "DAGSTER_DISABLE_TELEMETRY": "yes", "RAG_FOLDER": str(folder), **env})


def run_demo(folder: Path, console: Console) -> int:
    """Index the corpus in both shapes and compare; returns 0 if they hold and answer the same."""
    folder.mkdir(parents=True, exist_ok=True)
    small = laptop(folder)
    console.print("[bold]laptop[/]")
    console.print(small.rag("run"))
    with production(folder, console) as large:
        console.print("\n[bold]production[/]")
        console.print(large.rag("run"))
        again = large.json("run")
        console.print(f"again: {again['parsed']} parsed, {again['embedded']} embedded, {again['commits']} committed\n")
        differences = _compare(small, large, console)
        console.print(f'$ rag ask "{QUESTION}"')
        console.print(large.rag("ask", QUESTION))
        _ask_service(large, folder, console)
    for difference in differences:
        console.print(f"[bold red]differs[/] {difference}")
    console.print("both shapes hold the same chunks and answer the same" if not differences else "the shapes differ")
    return 1 if differences else 0


def _compare(small: Shape, large: Shape, console: Console) -> list[str]:
    differences = []
    chunks, others = small.chunks(), large.chunks()
    if chunks != others:
        differences.append(f"{len(chunks.keys() ^ others.keys())} chunk ids, of {len(chunks)} and {len(others)}")
    questions = [json.loads(line)["text"] for line in (REPO / "examples/questions.jsonl").read_text().splitlines()][:8]
    for question in questions:
        one, other = small.hits(question), large.hits(question)
        if not _same(one, other):
            differences.append(f"hits of {question!r}: {one[:3]} and {other[:3]}")
    table = Table("", "laptop", "production", box=None, pad_edge=False, header_style="bold")
    table.add_row("chunks", f"{len(chunks):,}", f"{len(others):,}")
    for command in ("run", "search"):
        table.add_row(f"rag {command}, s", str(small.seconds[command]), str(large.seconds[command]))
    console.print(table)
    console.print(f"{len(questions)} questions asked of both\n")
    return differences


def _same(one: list[tuple[str, float]], other: list[tuple[str, float]]) -> bool:
    """Tell whether two rankings are the same but for the order of equal scores, and for who of equals is the last."""
    if len(one) != len(other) or any(abs(a - b) > _SAME_SCORE for (_, a), (_, b) in zip(one, other, strict=True)):
        return False
    edge = min((score for _, score in (*one, *other)), default=0.0) + _SAME_SCORE
    sure, sure_too = ({name for name, score in ranking if score > edge} for ranking in (one, other))
    return sure <= dict(other).keys() and sure_too <= dict(one).keys()


def _ask_service(large: Shape, folder: Path, console: Console) -> None:
    """Ask over HTTP, twice: the second answer comes from Redis."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "rag_assets.cli", "serve"]
    env = {**large.env, "RAG_SERVING__PORT": str(port)}
    with services.process("serving", command, folder / "services", lambda: _is_ready(url), env):
        for turn in ("first", "again"):
            began = time.monotonic()
            hits = httpx.post(f"{url}/v1/search", json={"question": QUESTION}, timeout=60).raise_for_status().json()
            took = 1_000 * (time.monotonic() - began)
            console.print(f"POST {url}/v1/search, {turn}: {len(hits['hits'])} hits in {took:.0f} ms")
        metrics = httpx.get(f"{url}/metrics", timeout=60).text
        hit = [line for line in metrics.splitlines() if line.startswith("rag_cache_requests_total") and '"hit"' in line]
        console.print(f"from Redis: {hit[0] if hit else 'nothing'}\n")


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=10).is_success
    except httpx.TransportError:
        return False
