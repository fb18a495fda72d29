"""Backfills with the real jobs: partitions that fail, a process that is killed, runs that give way, text that stays."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from rich.console import Console

from rag_assets.backfill_runs import BACKFILL_TAG, run_backfill
from rag_assets.cli.output import table
from rag_assets.instance import dagster_home
from rag_assets.packed import PACKED_JOB, REASON_TAG
from rag_core import ids
from rag_core.backfill.choice import choose
from rag_core.backfill.pace import Pace
from rag_core.backfill.results import Result, counted, read_results
from rag_core.backfill.state import Backfill, Settings, list_backfills, load
from rag_core.config_loader import load_config
from rag_core.freshness.passes import load_passes
from rag_core.stages.staleness import stale_partitions
from rag_core.tables.delta import TableSlice
from resources.platform import PlatformResource
from tests.integration.flaky_engine import FAULTS, FlakyEngineResource
from tests.integration.pipeline_helpers import Platform

pytestmark = [pytest.mark.milvus, pytest.mark.slow]

BUCKETS = 128


class Told:
    """Keeps what a backfill says."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.paces: list[Pace] = []

    def progress(self, results: Mapping[str, Result], pace: Pace) -> None:
        self.paces.append(pace)

    def say(self, message: str) -> None:
        self.said.append(message)


def write_documents(folder: Path, buckets: int, wanted: set[int]) -> dict[str, Path]:
    """Write one document into each of some buckets; return their files by partition."""
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Path] = {}
    for number in count():
        name = f"item{number:05d}.md"
        bucket = ids.bucket_of(ids.doc_id("notes", name), buckets)
        key = ids.partition_key("notes", bucket, buckets)
        if bucket not in wanted or key in found:
            continue
        found[key] = folder / name
        found[key].write_text(f"# Item {number}\n\nThe crate number {number} holds spare part Z{number}.\n")
        if len(found) == len(wanted):
            return found
    raise AssertionError


def platform_in(root: Path, buckets: int, **settings: Any) -> Platform:
    source = {"name": "notes", "kind": "files", "root": str(root / "notes")}
    run = {"retry_after_s": 0.2, **settings.pop("run", {})}
    return Platform(root / "platform", [source], {"buckets": buckets, "run": run, **settings})


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.delenv("RAG_CONFIG", raising=False)
    monkeypatch.setenv("RAG_CONFIG", "")  # put back at the end: running in process sets it


@pytest.fixture
def platform(tmp_path: Path, clean_environment: None) -> Iterator[Callable[..., Platform]]:
    made: list[Platform] = []

    def make(buckets: int, **settings: Any) -> Platform:
        made.append(platform_in(tmp_path, buckets, **settings))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def test_a_set_with_gaps_of_which_some_fail(platform: Callable[..., Platform], tmp_path: Path) -> None:
    """64 partitions with gaps: two fail for good, three fail once; the others are done in as few runs as can be."""
    made = platform(BUCKETS)
    files = write_documents(tmp_path / "notes", BUCKETS, set(range(0, BUCKETS, 2)))
    keys = sorted(files)
    assert len(keys) == 64
    FAULTS.for_good = frozenset({keys[11], keys[50]})
    FAULTS.once = {keys[20], keys[33], keys[61]}
    flaky = set(FAULTS.once)
    loaded = load_config(made.config_path)
    choice = choose(made.store, loaded.config, Settings(), stale_only=True)
    assert sorted(choice.stale) == keys
    planned = choice.runs(loaded.config)
    assert [len(run.partition_keys) for run in planned] == [32, 32]
    told = Told()
    overrides = {"engine": FlakyEngineResource(platform=PlatformResource(config_path=str(made.config_path)))}
    report = run_backfill(loaded, Backfill.new(Settings(), choice.weights), told, overrides=overrides)

    passes = load_passes(made.store).to_pylist()
    _print_table(report.backfill, passes)
    # Two runs of 32, and one more of those that failed once: what failed for good is not tried again.
    assert [len(run.partition_keys) for run in report.backfill.runs] == [32, 32, 3]
    assert set(report.backfill.runs[2].partition_keys) == flaky
    counts = counted(report.results)
    assert (counts["ok"], counts["failed"], counts["waiting"], counts["held"]) == (62, 2, 0, 0)
    for key in FAULTS.for_good:
        result = report.results[key]
        assert (result.failure, result.stage, result.attempts) == ("permanent", "documents", 1)
        assert "nobody can read" in result.message
    tries = {key: [one for one in passes if one["partition_key"] == key] for key in keys}
    assert {key: len(listed) for key, listed in tries.items() if len(listed) > 1} == dict.fromkeys(flaky, 2)
    for key in flaky:
        assert sorted(one["outcome"] for one in tries[key]) == ["failed", "ok"]
    assert told.paces[-1].left == 0
    indexed = TableSlice.newest(made.store, "index_partitions").read(["partition_key"])["partition_key"].to_pylist()
    assert sorted(indexed) == sorted(set(keys) - FAULTS.for_good)
    assert report.summary.embedded + report.summary.reused == 62
    # The same command again tries what is left, and nothing else.
    assert set(choose(made.store, loaded.config, Settings(), stale_only=True).stale) == FAULTS.for_good
    FAULTS.for_good = frozenset()
    again = run_backfill(loaded, load(made.store, report.backfill.id), Told(), resume=True, overrides=overrides)
    assert [len(run.partition_keys) for run in again.backfill.runs[3:]] == [2]
    assert counted(again.results)["ok"] == 64
    assert stale_partitions(made.store, loaded.config) == {}


def _print_table(backfill: Backfill, passes: list[dict[str, Any]]) -> None:
    number = {run.run_id: place + 1 for place, run in enumerate(backfill.runs)}
    seconds = {run.run_id: run.seconds for run in backfill.runs}
    rows = []
    for run_id, place in number.items():
        mine = [one for one in passes if one["run_id"] == run_id]
        bad = [f"{one['partition_key']} {one['failure']}" for one in mine if one["outcome"] != "ok"]
        ok = sum(one["outcome"] == "ok" for one in mine)
        rows.append((place, len(mine), ok, ", ".join(bad), round(seconds[run_id], 1)))
    Console(width=130).print(table("runs of the backfill", ("run", "partitions", "ok", "failed", "seconds"), rows))


def test_killed_in_the_middle_and_resumed(platform: Callable[..., Platform], tmp_path: Path) -> None:
    made = platform(16, run={"max_partitions_per_run": 4})
    files = write_documents(tmp_path / "notes", 16, set(range(16)))
    process = made.start("backfill", "--stale-only")
    deadline = time.monotonic() + 200
    while not (known := list_backfills(made.store)) or sum(run.ended for run in known[0].runs) < 1:
        assert process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.join()
    cut = load(made.store)
    assert not cut.ended
    done = {key for key, one in read_results(made.store, cut, made.config.run).items() if one.state == "ok"}
    assert 0 < len(done) < 16
    resumed = made.rag("backfill", "--resume", "--json")
    assert resumed.returncode == 0, resumed.stderr
    figures = json.loads(resumed.stdout)
    assert (figures["id"], figures["partitions"]["ok"]) == (cut.id, 16)
    after = load(made.store, cut.id)
    again = [key for run in after.runs if run.session == 2 for key in run.partition_keys]
    assert sorted(again) == sorted(set(files) - done)
    assert sorted(made.milvus()[1]) == sorted(row[1] for row in made.tables()["index_partitions"])
    assert len(made.tables()["index_partitions"]) == 16
    nothing = made.command("backfill", "--stale-only")
    assert (nothing.returncode, nothing.stdout) == (0, "nothing to do\n")
    listed = json.loads(made.rag("backfill", "--list", "--json").stdout)
    assert [(one["id"], one["done"], one["left"], one["ended"]) for one in listed] == [(cut.id, 16, 0, True)]


def test_cutting_anew_embeds_only_text_that_changed(platform: Callable[..., Platform], tmp_path: Path) -> None:
    made = platform(2)
    folder = tmp_path / "notes"
    folder.mkdir()
    long = " ".join(f"Valve {number} is opened by the operator of pump {number * 7}." for number in range(30))
    for name in ("one", "two"):
        parts = [
            f"## Part {part} of {name}\n\n"
            + " ".join(f"Shelf {shelf} of part {part} in {name} holds the crate {shelf * 3}." for shelf in range(5))
            for part in range(3)
        ]
        text = "\n\n".join([f"# Manual {name}", *parts, f"## Pumps of {name}", long])
        (folder / f"{name}.md").write_text(text)
    # Both sizes hold a part and not two of them: only the long section is cut at other places.
    made.sources[0]["chunking"] = {"max_tokens": 120}
    made.__post_init__()
    first = json.loads(made.rag("backfill", "--json").stdout)
    assert first["embedded"] >= 2 * 3 + 3  # the long section is in both documents
    made.sources[0]["chunking"] = {"max_tokens": 100}
    made.__post_init__()
    dry = json.loads(made.rag("backfill", "--stale-only", "--dry-run", "--json").stdout)
    assert sum(run["documents_to_cut"] for run in dry["runs"]) == 2
    assert sum(run["objects"] for run in dry["runs"]) == 0
    again = made.rag("backfill", "--stale-only", "--json")
    assert again.returncode == 0, again.stderr
    figures = json.loads(again.stdout)
    assert figures["parsed"] == 0
    assert figures["reused"] >= 6  # the short parts
    assert 0 < figures["embedded"] < figures["chunks"]
    stage = made.rag("backfill", "--stage", "chunks", "--stale-only", "--json")
    assert (stage.returncode, json.loads(stage.stdout)["runs"]) == (0, [])


def test_a_single_stage_and_partitions_by_name(platform: Callable[..., Platform], tmp_path: Path) -> None:
    made = platform(4)
    write_documents(tmp_path / "notes", 4, set(range(4)))
    done = made.rag("backfill", "--stage", "documents", "--partition", "notes__0[02]", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["runs"], figures["partitions"]["ok"], figures["parsed"], figures["chunks"]) == (2, 2, 2, 0)
    assert load_passes(made.store).num_rows == 0  # nothing became searchable
    wrong = made.rag("backfill", "--partition", "nots__*")
    assert wrong.returncode == 2
    assert "no partition is like 'nots__*'; there are notes__00 to notes__03" in wrong.stderr


def test_gives_way_to_runs_of_fresh_changes(platform: Callable[..., Platform], tmp_path: Path) -> None:
    made = platform(2)
    write_documents(tmp_path / "notes", 2, {0, 1})
    loaded = load_config(made.config_path)
    choice = choose(made.store, loaded.config, Settings(), stale_only=True)

    @dg.job(name=PACKED_JOB)
    def waiting() -> None:
        pass

    with dg.DagsterInstance.from_config(str(dagster_home(made.store))) as instance:
        run_id = instance.create_run_for_job(
            waiting, tags={REASON_TAG: "change"}, status=dg.DagsterRunStatus.NOT_STARTED
        ).run_id

        class Ends(Told):
            """Ends the run once the backfill has said that it waits."""

            def say(self, message: str) -> None:
                super().say(message)
                if "gives way" in message:
                    assert not list(instance.get_runs(dg.RunsFilter(tags={REASON_TAG: "backfill"})))
                    run = instance.get_run_by_id(run_id)
                    assert run is not None
                    instance.report_run_canceled(run)

        told = Ends()
        report = run_backfill(loaded, Backfill.new(Settings(), choice.weights), told)
        assert "gives way to 1 runs of fresh changes" in told.said
        assert counted(report.results)["ok"] == 2
        mine = instance.get_runs(dg.RunsFilter(tags={BACKFILL_TAG: report.backfill.id}))
        assert [run.tags["dagster/priority"] for run in mine] == ["-10"]
