"""How long a change of a source takes until it is searchable, with the platform running as `make dev` starts it.

`python -m benchmarks.freshness --corpora FOLDER` (with `cranfield/docs.jsonl` and `mixed/`) starts the platform on the
documents, makes changes at random times, and looks into the index from outside until each has arrived; then it drops
many files at once, with single changes in between. `--kill` kills parts of the platform with SIGKILL meanwhile. At the
end the index is compared with the documents, and the platform's own account of latencies with what was measured here.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from rich.console import Console
from rich.progress import Progress

from benchmarks.freshness_changes import Change, Corpus
from benchmarks.freshness_platform import Platform, Prober
from rag_assets.cli.output import table
from rag_core.freshness.changes import load_changes
from rag_core.freshness.latency import latencies
from rag_core.freshness.passes import load_passes
from rag_core.index.client import connect
from rag_core.stages.publication import latest_manifest
from rag_core.tables.delta import TableSlice

_FIRST_LOAD_S = 1_200.0
_ARRIVED_WITHIN_S = 900.0
_KILLED = ("run", "embedding worker", "Milvus Lite server", "daemon")


@dataclass(frozen=True)
class Latencies:
    """Of some changes: seconds from the change until the index held it."""

    what: str
    changes: int
    missing: int
    p50_s: float
    p95_s: float
    max_s: float

    @classmethod
    def of(cls, what: str, changes: Sequence[Change]) -> "Latencies":
        """Sum up; those that did not arrive are missing."""
        seconds = [change.latency_s for change in changes if change.latency_s is not None]
        p50, p95, most = np.percentile(seconds, (50, 95, 100)) if seconds else (np.nan,) * 3
        missing = len(changes) - len(seconds)
        return cls(what, len(changes), missing, round(float(p50), 1), round(float(p95), 1), round(float(most), 1))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpora", type=Path, required=True, help="folder with cranfield/docs.jsonl and mixed/")
    parser.add_argument("--changes", type=int, default=100)
    parser.add_argument("--over", type=float, default=600.0, help="seconds in which the changes are made")
    parser.add_argument("--burst", type=int, default=2_000, help="files dropped at once afterwards; 0: none")
    parser.add_argument("--kill", action="store_true", help="kill run, worker, Milvus Lite and daemon meanwhile")
    parser.add_argument("--port", type=int, default=3700)
    parser.add_argument("--work", type=Path, help="folder to keep; default: a temporary one")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = arguments.work or Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        figures = _measure(root.resolve(), arguments)
    if arguments.json:
        print(json.dumps(figures))
        return
    console = Console()
    rows = [tuple(one.values()) for one in figures["latencies"]]
    columns = ("changes", "made", "missing", "p50 s", "p95 s", "max s")
    console.print(table("from the change until it is searchable", columns, rows))
    for name, value in figures.items():
        if name != "latencies":
            console.print(f"{name.replace('_', ' ')}: {value}", highlight=False)


def _measure(root: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    corpus = Corpus(root, arguments.corpora / "mixed", arguments.corpora / "cranfield" / "docs.jsonl")
    platform = Platform(root, corpus, port=arguments.port)
    platform.start()
    try:
        figures: dict[str, Any] = {"first_load_and_publication_s": round(platform.wait_until_served(_FIRST_LOAD_S), 1)}
        figures["documents"] = TableSlice.newest(platform.store, "documents").count()
        with Prober(platform) as prober:
            single = corpus.changes(arguments.changes, arguments.over)
            killed = _make(single, prober, platform, arguments.over if arguments.kill else 0.0)
            _wait(prober)
            measured = [Latencies.of("single changes", single)]
            if arguments.kill:
                figures["killed"] = ", ".join(killed)
            if arguments.burst:
                burst, meanwhile, seconds = _burst(corpus, prober, arguments.burst)
                measured += [Latencies.of("dropped at once", burst), Latencies.of("single ones meanwhile", meanwhile)]
                figures["all_of_the_burst_searchable_after_s"] = seconds
                single += [*burst, *meanwhile]
        figures["latencies"] = [asdict(one) for one in measured]
        figures |= _compared(platform, single)
        figures["rag_slo"] = "\n" + platform.rag("slo")
    finally:
        platform.stop()
    return figures


def _make(changes: Sequence[Change], prober: Prober, platform: Platform, kill_over_s: float) -> list[str]:
    """Make the changes at their times; with a duration, kill one part of the platform after the other meanwhile."""
    kills = [(kill_over_s * (number + 1) / (len(_KILLED) + 1), what) for number, what in enumerate(_KILLED)]
    kills = kills if kill_over_s else []
    killed = []
    began = time.monotonic()
    with Progress(disable=not Console().is_terminal) as bars:
        bar = bars.add_task("changes", total=len(changes))
        for change in changes:
            while (now := time.monotonic() - began) < change.at:
                if kills and now >= kills[0][0] and (pid := platform.kill(kills[0][1])) is not None:
                    killed.append(f"{kills.pop(0)[1]} ({pid}) after {now:.0f} s")
                time.sleep(0.1)
            change.made_at = time.time()
            change.apply()
            prober.watch([change])
            bars.advance(bar)
    return killed + [f"{what}: none was found" for _, what in kills]


def _burst(corpus: Corpus, prober: Prober, count: int) -> tuple[list[Change], list[Change], float]:
    """Drop many files at once; meanwhile make a single change every few seconds until all have arrived."""
    burst, meanwhile = corpus.burst(count), list[Change]()
    began = time.monotonic()
    for change in burst:
        change.made_at = time.time()
        change.apply()
    prober.watch(burst)
    while any(change.seen_at is None for change in burst) and time.monotonic() - began < _ARRIVED_WITHIN_S:
        change = corpus.new()
        change.made_at = time.time()
        change.apply()
        prober.watch([change])
        meanwhile.append(change)
        time.sleep(10)
    last = max((change.seen_at or float("inf") for change in burst), default=0.0)
    seconds = round(last - burst[0].made_at, 1)
    _wait(prober)
    return burst, meanwhile, seconds


def _wait(prober: Prober) -> None:
    deadline = time.monotonic() + _ARRIVED_WITHIN_S
    while prober.waiting and time.monotonic() < deadline:
        time.sleep(0.5)


def _compared(platform: Platform, changes: Sequence[Change]) -> dict[str, Any]:
    """Compare the index with the ledger, and the platform's account of latencies with what was measured here."""
    store = platform.store
    manifest = latest_manifest(store)
    assert manifest is not None
    deadline = time.monotonic() + 60  # runs that were asked for by the last looks end first
    while True:
        ledger = TableSlice.newest(store, "index_partitions", lane=manifest.collection).read(["chunk_id"])
        known = sorted(ledger["chunk_id"].to_pylist())
        with connect(platform.config.index, store) as client:
            held = client.list_ids(manifest.collection)
        if known == held or time.monotonic() > deadline:
            break
        time.sleep(2)
    counted = latencies(load_changes(store), load_passes(store), now=datetime.now(UTC)).filter(pc.field("counted"))
    done = counted["latency_s"].drop_null().to_numpy()
    p50, p95, most = np.percentile(done, (50, 95, 100)) if len(done) else (np.nan,) * 3
    expected = sum(len(one.present) + len(one.absent) for one in changes)
    return {
        "rows_in_index": len(held),
        "rows_missing": len(set(known).difference(held)),
        "rows_too_many": len(set(held).difference(known)),
        "rows_twice": len(held) - len(set(held)),
        "accounted_changes": f"{counted.num_rows:,} of {expected:,}, pending {counted['latency_s'].null_count}",
        "accounted_latency_s": f"p50 {p50:.1f}, p95 {p95:.1f}, max {most:.1f}",
    }


if __name__ == "__main__":
    main()
