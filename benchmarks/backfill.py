"""What a backfill costs beyond the work itself: packed runs beside one run a partition, and the work alone.

    python -m benchmarks.backfill --partitions 64,256,1024
    python -m benchmarks.backfill --partitions 256 --profile 30

Every partition holds one small document, and all of them change. Three ways bring them up to date: `rag backfill`
(packed runs in this process), one run a partition as Dagster's default does it (a few are measured, the rest is
extrapolated), and the functions of the stages called one after the other without Dagster. The texts of both editions
are in the vector cache, so no model is called. Exits with 1 when the overhead is above `--max-overhead`.
"""

import argparse
import cProfile
import itertools
import json
import os
import pstats
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from benchmarks.backfill_work import WorkAlone
from benchmarks.workspace import environment
from rag_assets.backfill import Driver, claim
from rag_assets.backfill_runs import InProcess
from rag_assets.cli.output import table
from rag_assets.runner import code_location
from rag_core import ids
from rag_core.backfill.choice import choose
from rag_core.backfill.pace import Pace
from rag_core.backfill.results import Result
from rag_core.backfill.state import Backfill, Settings
from rag_core.config_loader import LoadedConfig, load_config
from rag_core.index.lite_server import lite_files, stop
from rag_core.tables.store import Store

REPO = Path(__file__).resolve().parents[1]
_SOURCE_BUCKETS = 512
_STATUS = Console(stderr=True)


@dataclass(frozen=True)
class Cost:
    """Wall-clock seconds, and seconds of CPU of this process and those it waited for; servers are not among them."""

    seconds: float
    cpu_s: float
    parts: Mapping[str, float] = field(default_factory=dict)

    def per(self, partitions: int) -> "Cost":
        return Cost(self.seconds / partitions, self.cpu_s / partitions)


def measured(work: Callable[[], Mapping[str, float] | None]) -> Cost:
    """Run something and say what it cost."""
    started, cpu = time.perf_counter(), _cpu_s()
    parts = work() or {}
    return Cost(time.perf_counter() - started, _cpu_s() - cpu, parts)


def _cpu_s() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


class Setup:
    """A store in which every partition holds one document, in one of two editions."""

    def __init__(self, root: Path, partitions: int) -> None:
        self.root, self.partitions = root, partitions
        count = -(-partitions // _SOURCE_BUCKETS)
        buckets = -(-partitions // count)
        sources = [
            {"name": f"notes{number}", "kind": "files", "root": f"notes{number}", "buckets": buckets}
            for number in range(count)
        ]
        root.mkdir(parents=True)
        content = {"store": {"root": "store"}, "sources": sources, "embedding": {"worker_idle_s": 30}}
        self.config_path = root / "rag.yaml"
        self.config_path.write_text(yaml.safe_dump(content))
        self.files = [path for one in sources for path in _files(root, str(one["name"]), buckets)]
        self.loaded: LoadedConfig = load_config(self.config_path, check_files=False)
        self.store = Store.of(self.loaded.config.store)
        self._edition = itertools.count()

    def change(self) -> None:
        """Write the other edition of every document."""
        edition = "AB"[next(self._edition) % 2]
        for number, path in enumerate(self.files):
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"# Item {number}\n\nCrate {number} holds spare part {edition}{number}.\n")

    def packed(self) -> Mapping[str, float]:
        """Bring it up to date by a backfill, without the tests and the publication after it."""
        seconds: dict[str, float] = {}
        with _timed(seconds, "choosing"):
            choice = choose(self.store, self.loaded.config, Settings(), stale_only=True)
        if len(choice.stale) != self.partitions:
            raise SystemExit(f"{len(choice.stale)} partitions are stale, expected {self.partitions}")
        with _timed(seconds, "loading"):
            location = code_location(self.loaded)
            defs, instance = location.__enter__()
        try:
            with _timed(seconds, "runs"):
                backfill = claim(self.store, Backfill.new(Settings(), choice.weights))
                executor = InProcess(defs, instance, backfill)
                done, results = Driver(self.store, self.loaded.config, instance, executor, _Silent()).run(backfill)
        finally:
            location.__exit__(None, None, None)
        bad = [one for one in results.values() if one.state != "ok"]
        if bad:
            raise SystemExit(f"{len(bad)} partitions are not done, such as {bad[0]}")
        seconds["number of runs"] = len(done.runs)
        return seconds

    def alone(self) -> Mapping[str, float]:
        """Bring it up to date by the functions of the stages."""
        choice = choose(self.store, self.loaded.config, Settings(), stale_only=True)
        work = WorkAlone(self.store, self.loaded.config)
        started = time.perf_counter()
        for run in choice.runs(self.loaded.config):
            work.run(run.partition_keys)
        return {"runs": time.perf_counter() - started, **work.seconds}

    def single(self, count: int) -> Mapping[str, float]:
        """Bring a few partitions up to date by a run each, as a daemon starts them: a process a run, and one a step."""
        choice = choose(self.store, self.loaded.config, Settings(), stale_only=True)
        home = self.store.local_path("dagster")
        env = {**environment(self.config_path), "DAGSTER_HOME": str(home), "DAGSTER_DISABLE_TELEMETRY": "yes"}
        for key in sorted(choice.stale)[:count]:
            tags = json.dumps({"dagster/partition": key})
            command = [sys.executable, "-m", "dagster", "job", "execute", "-m", "definitions", "-j", "build_index"]
            done = subprocess.run(
                [*command, "--tags", tags], cwd=REPO, env=env, capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise SystemExit(f"the run of {key} failed\n{done.stderr[-2000:]}")
        return {}


class _Silent:
    def progress(self, results: Mapping[str, Result], pace: Pace) -> None:
        pass

    def say(self, message: str) -> None:
        _STATUS.print(message, highlight=False)


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Any:
    started = time.perf_counter()
    yield
    seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - started


def _files(root: Path, source: str, buckets: int) -> list[Path]:
    """Name one file for each bucket of a source."""
    found: dict[int, Path] = {}
    for number in itertools.count():
        name = f"item{number:05d}.md"
        found.setdefault(ids.bucket_of(ids.doc_id(source, name), buckets), root / source / name)
        if len(found) == buckets:
            return list(found.values())
    raise AssertionError


def measure(partitions: int, root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure the three ways at one size."""
    setup = Setup(root, partitions)
    try:
        for _ in range(2):  # both editions are embedded once
            setup.change()
            first = measured(setup.packed)
            _STATUS.print(f"{partitions} partitions, setting up: {first.seconds:.0f} s", highlight=False)
        rounds = []
        for _ in range(options.repeats):
            setup.change()
            alone = measured(setup.alone)
            setup.change()
            profile = cProfile.Profile(time.process_time) if options.profile else None
            if profile is not None:
                profile.enable()
            packed = measured(setup.packed)
            if profile is not None:
                profile.disable()
                pstats.Stats(profile, stream=sys.stderr).sort_stats("cumulative").print_stats(options.profile)
            rounds.append((alone, packed))
        alone, packed = min(rounds, key=lambda one: one[1].seconds - one[0].seconds)
        setup.change()
        single = measured(lambda: setup.single(options.single)) if options.single else None
        return {
            "partitions": partitions,
            "work_s": alone.parts["runs"],
            "work_cpu_s": alone.cpu_s,
            "packed_s": packed.parts["runs"],
            "packed_cpu_s": packed.cpu_s,
            "runs": int(packed.parts["number of runs"]),
            "choosing_s": packed.parts["choosing"],
            "overhead_s": (packed.parts["runs"] - alone.parts["runs"]) / partitions,
            "overhead_cpu_s": (packed.cpu_s - alone.cpu_s) / partitions,
            "single_runs": options.single,
            "single_s": None if single is None else single.seconds / options.single * partitions,
            "single_overhead_s": None
            if single is None
            else single.seconds / options.single - alone.parts["runs"] / partitions,
            "work_parts": {name: value for name, value in alone.parts.items() if name != "runs"},
        }
    finally:
        stop(lite_files(setup.store))


def print_report(console: Console, sizes: Sequence[Mapping[str, Any]], options: argparse.Namespace) -> None:
    """Print what was measured, a line for each size."""
    columns = ("partitions", "work alone s", "packed s", "runs", "overhead s/partition", "of it CPU")
    rows = [
        tuple(size[name] for name in ("partitions", "work_s", "packed_s", "runs", "overhead_s", "overhead_cpu_s"))
        for size in sizes
    ]
    console.print(table("a backfill of small partitions, beside its work without Dagster", columns, rows))
    if options.single:
        names = ("partitions", "single_s", "single_overhead_s")
        rows = [tuple(size[name] for name in names) for size in sizes]
        title = f"one run a partition, of which {options.single} were measured and the rest is extrapolated"
        console.print(table(title, ("partitions", "extrapolated s", "overhead s/partition"), rows))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--partitions", default="256", help="numbers of partitions, comma-separated")
    parser.add_argument("--single", type=int, default=8, help="runs of one partition to measure; 0: none")
    parser.add_argument("--repeats", type=int, default=1, help="the least overhead of so many rounds counts")
    parser.add_argument("--max-overhead", type=float, default=0.5, help="seconds a partition")
    parser.add_argument("--profile", type=int, default=0, metavar="N", help="profile the backfill, print N functions")
    parser.add_argument("--work", type=Path, help="where the temporary folder is made")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("RAG_") or name == "DAGSTER_HOME"]:
        del os.environ[name]
    work = Path(tempfile.mkdtemp(prefix="rag-backfill-", dir=options.work))
    console = Console(stderr=options.json, width=None if sys.stdout.isatty() else 130)
    try:
        sizes = [measure(int(part), work / part, options) for part in options.partitions.split(",")]
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print_report(console, sizes, options)
    within = all(size["overhead_s"] <= options.max_overhead for size in sizes)
    if options.json:
        print(json.dumps({"sizes": sizes, "within_limits": within, "cores": os.cpu_count()}))
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
