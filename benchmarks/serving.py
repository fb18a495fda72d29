"""Searches over HTTP: this service beside a plain handler, under 1, 10 and 50 users, in one run.

    python -m benchmarks.serving --corpus FOLDER [--users 1,10,50] [--seconds 15] [--store FOLDER]

The abstracts of the folder (docs.jsonl, queries.jsonl, in BEIR layout) are indexed with the default configuration, and
Locust's users ask its queries over loopback. `plain` is `benchmarks.serving_baseline`: SentenceTransformer.encode and
MilvusClient.search in each request. Ours is measured without its caches of results and of query vectors (dense, bm25,
hybrid), and with them (cached). All share one Milvus Lite, one side after the other. Exits with 1 below `--min-ratio`.
"""

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from benchmarks.workspace import environment
from rag_assets.cli.output import table
from rag_assets.runner import run_pipeline
from rag_core.config_loader import LoadedConfig, load_config
from rag_core.evaluation.beir import load_queries
from rag_core.index.lite_server import lease, lite_files, stop
from rag_core.stages.publication import latest_manifest
from rag_core.tables.store import Store

_STATUS = Console(stderr=True)
_UNLIMITED = {
    "RAG_SERVING__LIMITS__REQUESTS_PER_MINUTE": "100000000",
    "RAG_SERVING__LIMITS__CONCURRENT": "1000",
    "RAG_SERVING__LIMITS__IN_FLIGHT": "1000",
}
_UNCACHED = {"RAG_SERVING__CACHE__ENABLED": "false", "RAG_SERVING__RETRIEVAL__QUERY_CACHE": "0"}
_START_S = 180
_SUM = re.compile(r'rag_search_stage_duration_seconds_(sum|count)\{stage="(\w+)"\} (\S+)')


@dataclass(frozen=True)
class Measured:
    """What the users of one side saw.

    Attributes:
        side: ours or plain.
        mode: dense, bm25, hybrid, or hybrid from the cache.
        users: Users at once.
        requests: That were answered.
        failures: Of any kind.
        per_s: Requests a second.
        p50_ms: Median of the latency; p95_ms and p99_ms likewise.
        stages: Stage -> mean milliseconds of one run of it, which may serve several requests.
    """

    side: str
    mode: str
    users: int
    requests: int
    failures: int
    per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    stages: Mapping[str, float]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True, help="folder with docs.jsonl and queries.jsonl")
    parser.add_argument("--users", default="1,10,50", help="numbers of users, comma-separated")
    parser.add_argument("--seconds", type=int, default=15, help="how long each figure is measured")
    parser.add_argument("--store", type=Path, help="folder to index in, or that was indexed before; default: a new one")
    parser.add_argument("--min-ratio", type=float, default=3.0, help="throughput to reach, dense against plain")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    arguments = parser.parse_args()
    users = [int(number) for number in arguments.users.split(",")]
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.store or Path(scratch)
        loaded = _indexed(arguments.corpus.resolve(), folder)
        questions = folder / "questions.json"
        questions.write_text(json.dumps(list(load_queries(arguments.corpus / "queries.jsonl").values())))
        store = Store.of(loaded.config.store)
        manifest = latest_manifest(store)
        assert manifest is not None
        try:
            with lease(store, loaded.config.index) as milvus:
                found = list(_measure(loaded, milvus, manifest.collection, questions, users, arguments.seconds))
        finally:
            stop(lite_files(store))
    at_most = max(users)
    ours, plain = (_one(found, side, "dense", at_most) for side in ("ours", "plain"))
    ratio = ours.per_s / plain.per_s
    if arguments.json:
        print(json.dumps({"chunks": manifest.chunks, "ratio": ratio, "measured": [asdict(one) for one in found]}))
    else:
        _print(found, manifest.documents, manifest.chunks)
        print(
            f"dense, uncached, {at_most} users: {ratio:.1f} times the throughput of the plain handler; "
            f"p99 {ours.p99_ms:.0f} ms, plain {plain.p99_ms:.0f} ms"
        )
    if ratio < arguments.min_ratio or ours.p99_ms > plain.p99_ms:
        sys.exit(1)


def _indexed(corpus: Path, folder: Path) -> LoadedConfig:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "rag.yaml"
    source = {"name": "abstracts", "kind": "jsonl", "root": str(corpus / "docs.jsonl")}
    path.write_text(json.dumps({"store": {"root": "./data"}, "sources": [source]}))
    loaded = load_config(path)
    if latest_manifest(Store.of(loaded.config.store)) is None:
        _STATUS.print("indexing …")
        summary = run_pipeline(loaded)
        if summary.failures:
            raise SystemExit("\n".join(failure.message for failure in summary.failures))
    return loaded


def _measure(
    loaded: LoadedConfig, milvus: str, collection: str, questions: Path, users: Sequence[int], seconds: int
) -> Iterator[Measured]:
    assert loaded.path is not None
    plain = {"BENCH_MILVUS": milvus, "BENCH_COLLECTION": collection}
    command = [sys.executable, "-m", "uvicorn", "benchmarks.serving_baseline:app", "--log-level", "warning"]
    with _serving(loaded.path, command, plain) as address:
        for number in users:
            yield _load("plain", "dense", address, {}, questions, number, seconds)
    command = [sys.executable, "-m", "rag_assets.cli", "serve"]
    with _serving(loaded.path, command, _UNLIMITED | _UNCACHED) as address:
        for mode in ("dense", "bm25", "hybrid"):
            for number in users:
                yield _load("ours", mode, address, {"mode": mode}, questions, number, seconds)
    with _serving(loaded.path, command, _UNLIMITED) as address:
        for number in users:
            yield _load("ours", "hybrid, cached", address, {"mode": "hybrid"}, questions, number, seconds)


@contextmanager
def _serving(config: Path, command: Sequence[str], settings: Mapping[str, str]) -> Iterator[str]:
    """Start a side, wait until it answers, and end it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {**environment(config), **settings}
    # Both write a log, which nobody reads here.
    process = subprocess.Popen([*command, "--port", str(port)], env=env, stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + _START_S
        while not _is_ready(address):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{' '.join(command)} did not come up")
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(60)


def _is_ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz", timeout=5).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _load(
    side: str, mode: str, address: str, body: Mapping[str, Any], questions: Path, users: int, seconds: int
) -> Measured:
    _STATUS.print(f"{side}, {mode}, {users} users …")
    before = _stage_sums(address) if side == "ours" else {}
    # fmt: off
    command = [sys.executable, "-m", "locust", "-f", str(Path(__file__).with_name("serving_load.py")), "--headless",
               "--host", address, "--users", str(users), "--spawn-rate", "1000", "--run-time", f"{seconds}s",
               "--reset-stats", "--json", "--loglevel", "ERROR", "--exit-code-on-error", "0"]
    # fmt: on
    env = {**os.environ, "BENCH_QUESTIONS": str(questions), "BENCH_BODY": json.dumps(body)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    (stats,) = json.loads(done.stdout)
    after = _stage_sums(address) if side == "ours" else {}
    stages = {
        name: 1_000 * (total - before.get(name, (0, 0))[0]) / (runs - before.get(name, (0, 0))[1])
        for name, (total, runs) in after.items()
        if runs > before.get(name, (0, 0))[1]
    }
    times = {float(ms): count for ms, count in stats["response_times"].items()}
    return Measured(
        side, mode, users, stats["num_requests"], stats["num_failures"],
        stats["num_requests"] / (stats["last_request_timestamp"] - stats["start_time"]),
        *(_percentile(times, share) for share in (0.5, 0.95, 0.99)), stages,
    )  # fmt: skip


def _percentile(times: Mapping[float, int], share: float) -> float:
    wanted, seen = share * sum(times.values()), 0
    for ms in sorted(times):
        seen += times[ms]
        if seen >= wanted:
            return ms
    return float("nan")


def _stage_sums(address: str) -> dict[str, tuple[float, float]]:
    text = httpx.get(f"{address}/metrics", timeout=10).text
    values: dict[str, dict[str, float]] = {}
    for kind, stage, value in _SUM.findall(text):
        values.setdefault(stage, {})[kind] = float(value)
    return {stage: (value["sum"], value["count"]) for stage, value in values.items()}


def _one(found: Sequence[Measured], side: str, mode: str, users: int) -> Measured:
    return next(one for one in found if (one.side, one.mode, one.users) == (side, mode, users))


def _print(found: Sequence[Measured], documents: int, chunks: int) -> None:
    columns = (
        "side",
        "mode",
        "users",
        "requests",
        "failed",
        "per s",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "stages, ms a batch",
    )
    rows = [
        (
            one.side, one.mode, one.users, one.requests, one.failures, f"{one.per_s:.1f}",
            f"{one.p50_ms:.0f}", f"{one.p95_ms:.0f}", f"{one.p99_ms:.0f}",
            ", ".join(f"{name} {ms:.1f}" for name, ms in sorted(one.stages.items())),
        )
        for one in found
    ]  # fmt: skip
    Console(width=180).print(table(f"{documents} documents, {chunks} chunks, Milvus Lite, two cores", columns, rows))


if __name__ == "__main__":
    main()
