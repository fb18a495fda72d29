"""The whole pipeline at several sizes: seconds by stage, cost per chunk, peak memory of every process.

    python -m benchmarks.pipeline --sizes 1000,4000,16000
    python -m benchmarks.pipeline --sizes 1000 --baseline     # beside a plain ingestion script, on the same sample

For each size a fresh store with one `files` source is filled by `rag run`, in a process of its own, with the default
configuration; then `rag run` is repeated with nothing changed, and with one document changed. Documents are real
(`benchmarks.corpus`). Exits with 1 when the growth of the cost per chunk or a process's memory is over its limit.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import psutil
import yaml
from rich.console import Console

from benchmarks import pipeline_report
from benchmarks.corpus import DEFAULT_CACHE
from benchmarks.memory import MIB, MemorySampler, Peak, folder_bytes, peak_between
from benchmarks.stage_times import run_ids, stage_times
from benchmarks.workspace import Workspace, environment
from rag_core.index.lite_server import lite_files, stop

REPO = Path(__file__).resolve().parents[1]
DEFAULT_CORPUS = DEFAULT_CACHE.parent / "scale"
_STATUS = Console(stderr=True)
_LINE_EVERY_S = 30.0


def watch(command: list[str], workspace: Workspace, label: str) -> tuple[str, float, MemorySampler]:
    """Run a command to its end, with the sampler on it and a line of progress on stderr.

    Returns:
        Its standard output, its wall-clock seconds, and the sampler.

    Raises:
        SystemExit: It failed; the message ends with its last lines.
    """
    errors, printed = workspace.root / f"{label.replace(' ', '-')}.stderr", workspace.root / "stdout"
    started, line_at = time.perf_counter(), 0.0
    with errors.open("wb") as stderr, printed.open("wb") as stdout, _STATUS.status(label) as status:
        process = subprocess.Popen(
            command, cwd=REPO, env=environment(workspace.config), stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr
        )
        try:
            with MemorySampler(process.pid, lite_files(workspace.store)) as sampler:
                while process.poll() is None:
                    time.sleep(0.05)
                    seconds = time.perf_counter() - started
                    text = _progress(label, seconds, sampler)
                    status.update(text)
                    if not _STATUS.is_terminal and seconds - line_at > _LINE_EVERY_S:
                        line_at = seconds
                        _STATUS.print(text, highlight=False)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    seconds = time.perf_counter() - started
    if process.returncode:
        tail = "\n".join(errors.read_text(errors="replace").splitlines()[-30:])
        raise SystemExit(f"{label}: {' '.join(command[-3:])} ended with status {process.returncode}\n{tail}")
    return printed.read_text(), seconds, sampler


def _progress(label: str, seconds: float, sampler: MemorySampler) -> str:
    now = sampler.samples[-1].rss_bytes if sampler.samples else {}
    return f"{label}: {seconds:.0f} s; MiB: " + ", ".join(f"{role} {size // MIB}" for role, size in now.items())


def rag_run(workspace: Workspace, label: str) -> dict[str, Any]:
    """Run `rag run --json` and put together what it printed, what Dagster recorded and what the sampler saw."""
    before = run_ids(workspace.dagster_home)
    command = [sys.executable, "-m", "rag_assets.cli", "run", "--json"]
    output, seconds, sampler = watch(command, workspace, label)
    stages: dict[str, dict[str, Any]] = {
        name: {
            "seconds": round(times.seconds, 3),
            "steps": {step: round(value, 3) for step, value in times.steps.items()},
            "rest": round(times.rest, 3),
            "figures": times.figures,
            "peak_rss_bytes": _merged(peak_between(sampler.samples, *span) for span in times.spans),
        }
        for name, times in stage_times(workspace.dagster_home, before=before).items()
    }
    return {
        "seconds": round(seconds, 3),
        "summary": json.loads(output),
        "stages": stages,
        "outside_stages_s": round(seconds - sum(stage["seconds"] for stage in stages.values()), 3),
        "memory": _memory(sampler.peaks),
        "tree_rss_bytes": sampler.tree_rss_bytes,
        "other_processes": sorted(sampler.others),
    }


def _memory(peaks: Mapping[str, Peak]) -> dict[str, dict[str, int]]:
    return {role: dict(peak.__dict__) for role, peak in peaks.items()}


def _merged(peaks: Iterable[Mapping[str, int]]) -> dict[str, int]:
    merged: dict[str, int] = {}
    for peak in peaks:
        for role, size in peak.items():
            merged[role] = max(merged.get(role, 0), size)
    return merged


def documents_of(corpus: Path, size: int) -> tuple[Path, list[Path]]:
    """Return the folder of a size and its files by name, assembling it first if it is not there."""
    folder = corpus / str(size)
    if not folder.is_dir():
        part = corpus / f".{size}.part"
        shutil.rmtree(part, ignore_errors=True)
        _STATUS.print(f"assembling {size:,} documents in {folder}", highlight=False)
        command = [sys.executable, "-m", "benchmarks.corpus", "--out", str(part), "--documents", str(size)]
        subprocess.run(command, cwd=REPO, check=True, stdout=sys.stderr)
        part.rename(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if len(files) != size:
        raise SystemExit(f"{folder} holds {len(files):,} files, not {size:,}")
    return folder, files


def measure_size(corpus: Path, size: int, work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Fill a fresh store, repeat with nothing changed, and with one document changed."""
    folder, files = documents_of(corpus, size)
    workspace = Workspace.create(work / str(size), files, folder, options.settings)
    try:
        first = rag_run(workspace, f"{size} documents")
        result: dict[str, Any] = {
            "documents": size,
            "bytes": folder_bytes(workspace.documents),
            "chunks": first["summary"]["chunks"],
            **first,
            "store_bytes": folder_bytes(workspace.root / "store"),
        }
        if not options.first_only:
            result["unchanged"] = rag_run(workspace, f"{size} unchanged")
            workspace.change_one()
            result["one_changed"] = rag_run(workspace, f"{size} one changed")
        return result
    finally:
        stop(lite_files(workspace.store))


def measure_baseline(corpus: Path, size: int, work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run the plain script and the pipeline on the same sample, one after the other, each in a process of its own."""
    from benchmarks.plain_ingestion import OMITS

    folder, files = documents_of(corpus, size)
    sample = files[: options.baseline_documents]
    ours_at = Workspace.create(work / "sample", sample, folder, options.settings)
    plain_at = Workspace.create(work / "plain", sample, folder, options.settings)
    command = [sys.executable, "-m", "benchmarks.plain_ingestion", str(plain_at.documents)]
    output, seconds, sampler = watch(command, plain_at, "plain script")
    plain = {"seconds": round(seconds, 3), **json.loads(output), "memory": _memory(sampler.peaks)}
    try:
        ours = rag_run(ours_at, "pipeline on the sample")
        again = rag_run(ours_at, "pipeline again")
    finally:
        stop(lite_files(ours_at.store))
    return {"documents": len(sample), "plain": plain, "ours": ours, "again": again, "plain_omits": OMITS}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=_sizes, default=[1000, 4000, 16000], help="documents, comma-separated")
    parser.add_argument("--corpus", type=Path, default=DEFAULT_CORPUS, help="holds a folder for each size")
    parser.add_argument("--settings", type=yaml.safe_load, default={}, metavar="YAML", help="keys to add to rag.yaml")
    parser.add_argument("--first-only", action="store_true", help="leave out the runs after the first")
    parser.add_argument("--baseline", action="store_true", help="also run a plain script and ours on the same sample")
    parser.add_argument("--baseline-documents", type=int, default=300, metavar="N")
    parser.add_argument(
        "--max-growth", type=float, default=1.3, help="of the cost per chunk, against the smallest size"
    )
    parser.add_argument("--max-mib", type=int, default=3072, help="resident size of any one process")
    parser.add_argument("--work", type=Path, help="where the temporary folder is made")
    parser.add_argument("--keep", action="store_true", help="keep the stores, and say where they are")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="rag-pipeline-", dir=options.work))
    console = Console(stderr=options.json, width=None if sys.stdout.isatty() else pipeline_report.PLAIN_WIDTH)
    try:
        sizes = []
        for size in options.sizes:
            sizes.append(measure_size(options.corpus, size, work, options))
            pipeline_report.print_size(console, sizes[-1])
        report: dict[str, Any] = pipeline_report.summarise(sizes, options.max_growth, options.max_mib)
        report["machine"] = {
            "cores": len(psutil.Process().cpu_affinity()) if sys.platform == "linux" else os.cpu_count(),
            "memory_bytes": psutil.virtual_memory().total,
            "platform": platform.platform(),
        }
        if options.baseline:
            report["baseline"] = measure_baseline(options.corpus, max(options.sizes), work, options)
        pipeline_report.print_report(console, report)
    finally:
        if options.keep:
            _STATUS.print(f"kept: {work}", highlight=False)
        else:
            shutil.rmtree(work, ignore_errors=True)
    if options.json:
        print(json.dumps(report, default=str))
    return 0 if report["within_limits"] else 1


def _sizes(text: str) -> list[int]:
    return sorted({int(part) for part in text.split(",")})


if __name__ == "__main__":
    sys.exit(main())
