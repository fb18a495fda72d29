"""Reads facts from the store. Where the files of looks and events lie is said here, in one place."""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pyarrow.compute as pc

from rag_core.alerts.facts import LookFact, PoisonFact, ProblemFact, StuckFact, VerdictFact
from rag_core.config import RagConfig
from rag_core.partitions import all_partition_keys
from rag_core.reports.outcomes import Outcome
from rag_core.reports.pages import names_in, read_text
from rag_core.tables.delta import TableSlice
from rag_core.tables.store import Store

if TYPE_CHECKING:
    from rag_core.freshness.slo import Standing

REJECT_TEST: Final = "reject_rate"

_EXAMPLES: Final = 3
_LATE: Final = timedelta(hours=1)  # results are stored a while after they were evaluated


def problem_path(source: str) -> str:
    """Return where the sensor of a source keeps why its looks find nothing; no file: they do."""
    return f"work/looks/{source}/problem.json"


def last_look_path(source: str) -> str:
    """Return where it is kept when the newest completed look at a source began."""
    return f"work/looks/{source}/last.json"


def poison_folder(source: str) -> str:
    """Return the folder of notifications that could not be understood."""
    return f"work/events/{source}/poison"


def read_standings(store: Store, config: RagConfig, *, now: datetime) -> "Iterator[Standing]":
    """Judge every source against its objective."""
    from rag_core.freshness.changes import load_changes
    from rag_core.freshness.passes import load_passes
    from rag_core.freshness.slo import standing

    changes, passes = load_changes(store), load_passes(store)
    for source in config.sources:
        yield standing(changes, passes, config.objective_of(source), config.freshness, source=source.name, now=now)


def read_stuck(store: Store, config: RagConfig, *, now: datetime) -> Iterator[StuckFact]:
    """Find the stuck partitions of every source, and what their last try says."""
    from rag_core.freshness.dirty import dirty_partitions
    from rag_core.freshness.passes import load_passes

    stuck = [one for source in config.sources for one in dirty_partitions(store, config, source.name, now=now)]
    stuck = [one for one in stuck if one.stuck]
    if not stuck:
        return
    failed = load_passes(store).filter(pc.field("outcome") != "ok").sort_by("finished_at")
    last = {row["partition_key"]: row for row in failed.select(["partition_key", "stage", "run_id"]).to_pylist()}
    for one in stuck:
        of = last.get(one.partition_key, {"stage": "", "run_id": ""})
        yield StuckFact(
            one.partition_key, one.objects, one.oldest_changed_at, one.attempts, one.failure, of["stage"], one.message,
            of["run_id"],
        )  # fmt: skip


def read_verdict(store: Store, collection: str) -> VerdictFact | None:
    """Return the newest verdict on a collection."""
    from rag_core.stages.publication import latest_manifest
    from rag_core.stages.verdict import newest_verdict

    verdict, manifest = newest_verdict(store, collection), latest_manifest(store)
    if verdict is None:
        return None
    is_served = manifest is not None and manifest.collection == collection
    return VerdictFact(collection, verdict.judged_at, verdict.passed, verdict.reasons, is_served)


def read_problems(store: Store, config: RagConfig) -> list[ProblemFact]:
    """Return the sources that cannot be looked at, and why."""
    return [
        ProblemFact(source.name, str(found["kind"]), str(found["message"]), _time(found["since"]))
        for source in config.sources
        if (found := _read_json(store, problem_path(source.name)))
    ]


def read_looks(store: Store, config: RagConfig) -> list[LookFact]:
    """Return the newest completed look at each source; a source without any was not looked at by a sensor yet."""
    return [
        LookFact(source.name, _time(found["started_at"]))
        for source in config.sources
        if (found := _read_json(store, last_look_path(source.name)))
    ]


def read_poison(store: Store, config: RagConfig) -> list[PoisonFact]:
    """Return the sources with notifications that were set aside."""
    found = [(source.name, names_in(store, poison_folder(source.name))) for source in config.sources]
    return [
        PoisonFact(source, len(names), store.uri(poison_folder(source)), tuple(names[:_EXAMPLES]))
        for source, names in found
        if names
    ]


class RejectRates:
    """The newest result of the test `reject_rate` for each partition; rows that were read are not read again."""

    def __init__(self, store: Store, config: RagConfig) -> None:
        """Name the store; nothing is read yet."""
        self._store = store
        self._keys = frozenset(all_partition_keys(config))
        self._version = -1
        self._newest: dict[str, Outcome] = {}

    def read(self) -> Sequence[Outcome]:
        """Return the newest results, of partitions that the configuration still has."""
        current = TableSlice.newest(self._store, "quality_results")
        if current.version != self._version:
            where = (pc.field("table") == "documents") & (pc.field("test") == REJECT_TEST)
            if self._newest:
                latest = max(one.evaluated_at for one in self._newest.values())
                where &= pc.field("evaluated_at") >= latest - _LATE
            for row in current.read(list(Outcome.__dataclass_fields__), where).sort_by("evaluated_at").to_pylist():
                known = self._newest.get(row["partition_key"])
                if known is None or known.evaluated_at <= row["evaluated_at"]:
                    self._newest[row["partition_key"]] = Outcome(**row)
            self._version = current.version
        return [one for key, one in self._newest.items() if key in self._keys]


def _read_json(store: Store, path: str) -> dict[str, Any] | None:
    text = read_text(store, path)
    return None if text is None else dict(json.loads(text))


def _time(text: str) -> datetime:
    """Read a time; one without a zone is UTC."""
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)
