"""The page of a source: what its documents, chunks and index are, what its tests found, and how fresh it is."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from rag_core import ids
from rag_core.config import RagConfig
from rag_core.freshness.measuring import measure
from rag_core.partitions import partition_keys_of
from rag_core.reports import charts
from rag_core.reports.chunk_facts import ChunkFacts, chunk_facts
from rag_core.reports.document_facts import DocumentFacts, document_facts
from rag_core.reports.formats import NOTHING, age, counted, number, render
from rag_core.reports.freshness import STATE_TONES, Freshness, change_latencies, freshness, history_plot, share_met
from rag_core.reports.outcomes import TestFacts, newest_evaluation, newest_outcomes
from rag_core.reports.pages import FOLDER, ReportPage, Tone, keep_newest, names_in, safe_name, write_page
from rag_core.stages.publication import Manifest, latest_manifest
from rag_core.tables.delta import LANES, TableSlice, in_set
from rag_core.tables.store import Store

_TABLES: Final = {"documents": "d", "chunks": "c", "embeddings": "e", "index_partitions": "i"}
_KEPT_PAGES: Final = 50
_DELETIONS: Final = 20
_LAYOUT: Final = "2"  # moves when the same tables would give another page


@dataclass(frozen=True)
class _Subject:
    """What a page is about: the source's partitions of each table, of the lanes that are served."""

    store: Store
    config: RagConfig
    source: str
    keys: tuple[str, ...]
    manifest: Manifest | None
    slices: Mapping[str, TableSlice]

    @classmethod
    def of(cls, store: Store, config: RagConfig, source: str) -> "_Subject":
        keys, manifest = tuple(partition_keys_of(config, source)), latest_manifest(store)
        lanes = _served_lanes(manifest)
        slices = {name: TableSlice.newest(store, name, keys, lane=lanes.get(name)) for name in _TABLES}
        return cls(store, config, source, keys, manifest, slices)

    @property
    def lanes(self) -> dict[str, str]:
        return _served_lanes(self.manifest)

    @property
    def folder(self) -> str:
        return f"{FOLDER}/sources/{safe_name(self.source)}"

    @property
    def digest(self) -> str:
        """Digest all that the page shows, without reading rows; commits to other sources do not change it."""
        files = [path for one in self.slices.values() for path in _files(one)]
        removed = newest_deletions(self.store, self.keys, most=1)
        return ids.digest(
            _LAYOUT,
            *files,
            newest_evaluation(self.store, self.keys),
            measure(self.store, self.config, self.source, now=datetime.now(UTC)).known,
            *(row["removed_at"].isoformat() for row in removed),
            self.manifest.collection if self.manifest else "",
        )[:8]


def write_source_report(store: Store, config: RagConfig, source: str, *, run_id: str) -> ReportPage:
    """Write the page of a source, named by the versions of its tables.

    Memory holds keys and hashes of the source, and lengths of its chunks; no text but a few examples.

    Args:
        store: Holds the tables and the page.
        config: Names the source.
        source: Its name.
        run_id: The Dagster run, or the command, that asks for the page; shown on it.

    Raises:
        KeyError: There is no such source.
    """
    subject = _Subject.of(store, config, source)
    now = datetime.now(UTC)
    facts = _gather(subject, now)
    versions = "-".join(f"{_TABLES[name]}{one.version}" for name, one in subject.slices.items())
    html = render("source.html", **facts, run_id=run_id, back="../../index.html")
    page = write_page(
        store,
        f"{subject.folder}/{versions}-{subject.digest}.html",
        html,
        title=f"Source {source}",
        written_at=now.isoformat(timespec="seconds"),
        tone=_worst(_tone(facts["documents"], facts["tests"]), facts["standing_tone"]),
        facts={
            **_card(facts["documents"], facts["chunks"], facts["fresh"], facts["tests"], now),
            "objective": share_met(facts["standing"]),
        },
    )
    keep_newest(store, subject.folder, _KEPT_PAGES)
    return page


def source_report_is_current(store: Store, config: RagConfig, source: str) -> bool:
    """Tell whether there is a page of what the tables hold of a source now. Ages on it may be old."""
    subject = _Subject.of(store, config, source)
    ending = f"-{subject.digest}.html"
    return any(name.endswith(ending) for name in names_in(store, subject.folder))


def newest_deletions(store: Store, partition_keys: tuple[str, ...], most: int) -> list[dict[str, Any]]:
    """Return the newest deletions of some partitions, the newest first."""
    rows = TableSlice.newest(store, "deletions").read(where=in_set("partition_key", partition_keys))
    return list(rows.sort_by([("removed_at", "descending")]).slice(0, most).to_pylist())


def _gather(subject: _Subject, now: datetime) -> dict[str, Any]:
    slices, config = subject.slices, subject.config
    documents, chunks = document_facts(slices["documents"]), chunk_facts(slices["chunks"])
    tests = newest_outcomes(subject.store, subject.keys, subject.lanes)
    fresh = freshness(slices["documents"], slices["chunks"], slices["index_partitions"], now=now)
    measured = measure(subject.store, config, subject.source, now=now)
    latency = change_latencies(measured.rows)
    chunking = config.source(subject.source).chunking or config.chunking
    return {
        "title": f"Source {subject.source}",
        "source": config.source(subject.source),
        "now": now,
        "manifest": subject.manifest,
        "versions": {name: one.version for name, one in slices.items()},
        "documents": documents,
        "chunks": chunks,
        "tests": tests,
        "fresh": fresh,
        "standing": measured.standing,
        "standing_tone": STATE_TONES[measured.standing.state],
        "latency": latency,
        "latencies": charts.ranged(latency.classes) if latency else [],
        "history": history_plot(measured),
        "partitions": _partition_rows(subject, tests),
        "deletions": newest_deletions(subject.store, subject.keys, _DELETIONS),
        "mimes": charts.bars(documents.mimes),
        "languages": charts.bars(documents.languages),
        "ages": charts.ranged(fresh.age.classes) if fresh.age else [],
        "delays": charts.ranged(fresh.delay.classes) if fresh.delay else [],
        "token_chart": charts.histogram(chunks.token_counts, unit="tokens", limit=chunking.max_tokens),
        "char_chart": charts.histogram(chunks.char_counts, unit="characters"),
    }


def _partition_rows(subject: _Subject, tests: TestFacts) -> list[dict[str, Any]]:
    """Count by partition: documents by status, chunks, tokens, vectors, indexed rows, outcomes of tests."""
    rows: dict[str, dict[str, Any]] = {
        key: {"key": key, "ok": 0, "empty": 0, "rejected": 0, "chunks": 0, "tokens": 0, "vectors": 0, "indexed": 0,
              "indexed_at": None, **tests.counts_of(key)}
        for key in subject.keys
    }  # fmt: skip
    slices = subject.slices
    by_status = _grouped(slices["documents"], ["partition_key", "status"], "status", "count")
    for row in by_status:
        rows[row["partition_key"]][row["status"]] = row["status_count"]
    for row in _grouped(slices["chunks"], ["partition_key"], "token_count", "count", "sum"):
        rows[row["partition_key"]] |= {"chunks": row["token_count_count"], "tokens": row["token_count_sum"]}
    for row in _grouped(slices["embeddings"], ["partition_key"], "chunk_id", "count"):
        rows[row["partition_key"]]["vectors"] = row["chunk_id_count"]
    for row in _grouped(slices["index_partitions"], ["partition_key"], "indexed_at", "count", "max"):
        found = {"indexed": row["indexed_at_count"], "indexed_at": row["indexed_at_max"]}
        rows[row["partition_key"]] |= found
    return list(rows.values())


def _grouped(current: TableSlice, by: list[str], column: str, *functions: str) -> list[dict[str, Any]]:
    columns = list(dict.fromkeys([*by, column]))
    wanted = [(column, function) for function in functions]
    return list(current.read(columns).group_by(by).aggregate(wanted).to_pylist())


def _worst(*tones: Tone) -> Tone:
    order: tuple[Tone, ...] = ("bad", "warn", "good")
    return min(tones, key=order.index)


def _tone(documents: DocumentFacts, tests: TestFacts) -> Tone:
    if tests.counts["error"]:
        return "bad"
    return "warn" if tests.counts["warn"] or documents.statuses.get("rejected") else "good"


def _card(
    documents: DocumentFacts, chunks: ChunkFacts, fresh: Freshness, tests: TestFacts, now: datetime
) -> dict[str, str]:
    statuses = (f"{number(documents.statuses.get(name, 0))} {name}" for name in ("ok", "empty", "rejected"))
    outcomes = ", ".join(f"{number(count)} {name}" for name, count in tests.counts.items()) if tests.newest else NOTHING
    waiting: timedelta | None = now - fresh.oldest_waiting if fresh.oldest_waiting else None
    behind = (
        f"{counted(fresh.waiting, 'chunk')} to be indexed, oldest change {age(waiting)} ago"
        if fresh.waiting
        else "nothing"
    )
    return {
        "documents": f"{number(documents.count)}: {', '.join(statuses)}",
        "chunks": number(chunks.count),
        "tests": outcomes,
        "behind": behind,
        "median age": age(fresh.age.p50_s) if fresh.age else NOTHING,
    }


def _served_lanes(manifest: Manifest | None) -> dict[str, str]:
    """Return table -> lane of what is served; before the first publication there is one lane, so none is named."""
    if manifest is None:
        return {}
    settings = json.loads(manifest.settings)
    return {
        "chunks": settings["chunk_lane"],
        "embeddings": settings["embedding_lane"],
        "index_partitions": manifest.collection,
    }


def _files(current: TableSlice) -> list[str]:
    """List the data files of a slice, sorted."""
    actions = pa.table(current.open().get_add_actions(flatten=True))
    if not actions.num_rows:
        return []
    chosen = pc.is_in(actions["partition.partition_key"], pa.array(current.partition_keys, pa.string()))
    if current.lane is not None:
        chosen = pc.and_(chosen, pc.equal(actions[f"partition.{LANES[current.table]}"], current.lane))
    return sorted(actions.filter(chosen)["path"].to_pylist())
