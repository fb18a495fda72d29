"""Looks at a folder of many files: seconds and memory when nothing changed and with ten changes, beside a full diff.

    python -m benchmarks.looks --sizes 1000,10000,100000

A look is what a source's sensor does at every tick: list, compare with the snapshot of the look before, record what
changed (`rag_core.freshness.observation`), and find the partitions that changes wait in. Beside it stands what a run's
own comparison takes: the listing against all that the documents table knows of the source, object by object. Every
figure is from a process of its own; `first` is its first look, `next` the middle one of those after it, as in a daemon.
`CPU` is the processor's time of the latter, growth the peak of a look above what the process took just before it.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pyarrow as pa

from benchmarks.memory import MIB, high_water_bytes
from rag_core import ids
from rag_core.config import FilesSource, RagConfig, StoreConfig
from rag_core.freshness.dirty import dirty_partitions
from rag_core.freshness.observation import observe
from rag_core.freshness.passes import Pass, record_passes
from rag_core.parsing.settings import ParseSettings, parser_fingerprint
from rag_core.partitions import all_partition_keys
from rag_core.schemas import DOCUMENTS
from rag_core.sources.diff import diff
from rag_core.sources.factory import open_source
from rag_core.stages.seen import seen_source
from rag_core.tables.change import TableChange, commit, stage
from rag_core.tables.delta import TableSlice
from rag_core.tables.store import Store

_SOURCE = "benchmark"
_IN_FOLDER = 500
_LOOKS = 5
_CHANGES = 10
_LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1000,10000,100000", help="numbers of files, comma-separated")
    parser.add_argument("--json", action="store_true", help="one JSON object a row")
    args = parser.parse_args()
    if not args.json:
        print(f"{'files':>8}{'changes':>9}  {'':<10}{'first s':>9}{'next s':>9}{'CPU s':>8}", end="")
        print(f"{'growth MiB':>12}{'next':>7}{'peak MiB':>10}")
    for size in (int(text) for text in args.sizes.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            _make(Path(folder), size)
            for changes in (0, _CHANGES):
                for what in (_look, _full_diff):
                    _report(args, size, changes, what.__name__.strip("_"), _in_process(Path(folder), what, changes))


def _report(args: argparse.Namespace, size: int, changes: int, what: str, figures: dict[str, float]) -> None:
    if args.json:
        print(json.dumps({"files": size, "changes": changes, "what": what, **figures}))
        return
    print(f"{size:>8,}{changes:>9}  {what.replace('_', ' '):<10}{figures['first_s']:>9.3f}", end="")
    print(f"{figures['next_s']:>9.3f}{figures['next_cpu_s']:>8.3f}", end="")
    print(f"{figures['first_growth_mib']:>12,.1f}{figures['next_growth_mib']:>7,.1f}{figures['peak_mib']:>10,.0f}")


def _in_process(folder: Path, what: Callable[[Path], int], changes: int) -> dict[str, float]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (folder, what, changes))


def _measure(folder: Path, what: Callable[[Path], int], changes: int) -> dict[str, float]:
    """Time some looks in this process; growth is a look's peak above what the process took just before it."""
    seconds, cpu, growths, peak = [], [], [], 0
    for _ in range(_LOOKS):
        _change(folder, changes)
        before = _reset_peak()
        started, used = time.perf_counter(), time.process_time()
        found = what(folder)
        seconds.append(time.perf_counter() - started)
        cpu.append(time.process_time() - used)
        highest = high_water_bytes(os.getpid())
        growths.append((highest - before) / MIB)
        peak = max(peak, highest)
        if what is _look and found != changes:
            raise SystemExit(f"{found} changes were found; expected {changes}")
    return {
        "first_s": seconds[0],
        "next_s": statistics.median(seconds[1:]),
        "next_cpu_s": statistics.median(cpu[1:]),
        "first_growth_mib": growths[0],
        "next_growth_mib": max(growths[1:]),
        "peak_mib": peak / MIB,
    }


def _look(folder: Path) -> int:
    now = datetime.now(UTC)
    config, store = _config(folder), Store(str(folder / "store"))
    seen = observe(store, config, _SOURCE, now=now)
    dirty_partitions(store, config, _SOURCE, now=now)
    return seen.changes.num_rows


def _full_diff(folder: Path) -> int:
    """Compare the listing with all that the documents table knows, as a run over all partitions does."""
    config = _config(folder)
    source, keys = config.source(_SOURCE), all_partition_keys(config)
    settings = ParseSettings.of(config.parsing, source)
    current = TableSlice.newest(Store(str(folder / "store")), "documents", keys)
    listing = list(open_source(source).list())
    seen = seen_source(current, _SOURCE, keys, config.buckets_of(source), settings)
    found = diff(listing, seen.objects, parser_fingerprint=parser_fingerprint(settings))
    return len(found.new) + len(found.changed) + len(found.deleted)


def _reset_peak() -> int:
    """Forget what the process took at most, where the system allows it; return what it takes now, in bytes."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return high_water_bytes(os.getpid())


def _change(folder: Path, changes: int) -> None:
    """Remove three tenths of so many files, add as many, and make others longer."""
    some = changes * 3 // 10
    corpus = folder / "corpus"
    for path in sorted((corpus / "000").iterdir())[:some]:
        path.unlink()
    for _ in range(some):
        _write(corpus / "added" / f"{uuid4().hex}.md", "A new page.")
    for path in sorted((corpus / "001").iterdir())[: changes - 2 * some]:
        _write(path, f"{path.read_text()} It goes on.")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (_LONG_AGO.timestamp(), _LONG_AGO.timestamp()))  # not of now: it would be left to settle


def _make(folder: Path, size: int) -> None:
    """Make the files, and a store that has indexed them."""
    for number in range(size):
        folder_number, name = divmod(number, _IN_FOLDER)
        _write(folder / "corpus" / f"{folder_number:03}" / f"document {name:03}.md", "A page.")
    config, store = _config(folder), Store(str(folder / "store"))
    now = datetime.now(UTC)
    observe(store, config, _SOURCE, now=now)
    keys = all_partition_keys(config)
    record_passes(store, [Pass(key, "change", listed_at=datetime.now(UTC), verified_at=now) for key in keys], "first")
    rows = _documents(config)
    current = TableSlice.newest(store, "documents", keys)
    commit(TableChange(current, "object_id", files=stage(store, "documents", rows.to_batches(8_192))), run_id="first")


def _documents(config: RagConfig) -> pa.Table:
    source = config.source(_SOURCE)
    parser = parser_fingerprint(ParseSettings.of(config.parsing, source))
    buckets, rows = config.buckets_of(source), []
    for item in open_source(source).list():
        object_id = item.root_doc_id
        rows.append({
            "partition_key": ids.partition_key(_SOURCE, ids.bucket_of(object_id, buckets), buckets),
            "doc_id": object_id, "source": _SOURCE, "object_key": item.key, "object_id": object_id, "member": "",
            "uri": item.uri, "mime": "text/markdown", "text": "A page.", "modified_at": item.modified_at,
            "size_bytes": item.size_bytes, "object_fingerprint": item.fingerprint, "content_hash": object_id,
            "text_hash": object_id, "principals": ["everyone"], "access_label": "label", "status": "ok",
            "parser_fingerprint": parser, "doc_hash": object_id, "ingested_at": _LONG_AGO,
        })  # fmt: skip
    return pa.Table.from_pylist(rows, schema=DOCUMENTS)


def _config(folder: Path) -> RagConfig:
    source = FilesSource(kind="files", name=_SOURCE, root=folder / "corpus")
    return RagConfig(store=StoreConfig(root=str(folder / "store")), sources=(source,))


if __name__ == "__main__":
    main()
