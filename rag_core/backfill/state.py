"""What a backfill remembers in the store, so that it goes on after it was cut off: `work/backfills/<id>.json`.

What became of its partitions is not in there: that is in `passes`, written by the runs themselves. Only runs of a
single stage make no passes; their results are kept with the run.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

import pyarrow.fs as pafs

from rag_core.errors import ConfigError
from rag_core.tables.files import write_file
from rag_core.tables.store import Store

_FOLDER: Final = "work/backfills"


@dataclass(frozen=True)
class Settings:
    """What was asked for; field by field an option of `rag backfill`."""

    stage: str | None = None
    rebuild: bool = False
    accept_deletions: bool = False
    pause_s: float = 0.0
    max_objects: int | None = None
    submit: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of a partition in a run: `outcome`, `stage`, `failure` and `message` as in `passes`."""

    outcome: str
    stage: str = ""
    failure: str = ""
    message: str = ""


@dataclass(frozen=True)
class BackfillRun:
    """One run.

    Attributes:
        run_id: Of the Dagster run; written down before it starts.
        partition_keys: Its partitions.
        session: Number of the session that asked for it: 1, and one more each time the backfill is resumed.
        started_at: When it was started or queued.
        ended: Whether it is known to have ended.
        seconds: How long it took, 0 if it is not known.
        outcomes: By partition, of runs of a single stage.
    """

    run_id: str
    partition_keys: tuple[str, ...]
    session: int
    started_at: datetime
    ended: bool = False
    seconds: float = 0.0
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)


@dataclass(frozen=True)
class Backfill:
    """A backfill.

    Attributes:
        id: Sorts by time.
        created_at: When it was asked for.
        settings: How it works.
        weights: Its partitions, and objects to do in each when it was asked for, at least 1.
        runs: The oldest first.
        session: How often it was started.
        process: The process that works on it, as `rag_assets.processes` names it; empty if none does.
        ended: Whether nothing is left that could be tried.
    """

    id: str
    created_at: datetime
    settings: Settings
    weights: Mapping[str, int]
    runs: tuple[BackfillRun, ...] = ()
    session: int = 1
    process: str = ""
    ended: bool = False

    @classmethod
    def new(cls, settings: Settings, weights: Mapping[str, int]) -> "Backfill":
        """Make a backfill with an id of its own; nothing is written."""
        now = datetime.now(UTC)
        return cls(f"{now:%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:4]}", now, settings, dict(weights))

    @property
    def running(self) -> tuple[str, ...]:
        """Ids of the runs that are not known to have ended."""
        return tuple(run.run_id for run in self.runs if not run.ended)

    def with_run(self, run_id: str, partition_keys: Sequence[str]) -> "Backfill":
        """Add a run that is about to start."""
        run = BackfillRun(run_id, tuple(partition_keys), self.session, datetime.now(UTC))
        return replace(self, runs=(*self.runs, run))

    def run_ended(self, run_id: str, seconds: float, outcomes: Mapping[str, Outcome] | None = None) -> "Backfill":
        """Note that a run ended."""
        return replace(
            self,
            runs=tuple(
                replace(run, ended=True, seconds=seconds, outcomes=outcomes or {}) if run.run_id == run_id else run
                for run in self.runs
            ),
        )


def save(store: Store, backfill: Backfill) -> None:
    """Write a backfill; a reader finds it as it was before or as it is now."""
    content = json.dumps(asdict(backfill), default=_plain)
    write_file(store, f"{_FOLDER}/{backfill.id}.json", content.encode())


def load(store: Store, backfill_id: str = "") -> Backfill:
    """Read a backfill; without an id the newest that has not ended.

    Raises:
        ConfigError: There is none.
    """
    known = list_backfills(store)
    wanted = [one for one in known if one.id == backfill_id or (not backfill_id and not one.ended)]
    if not wanted:
        what = f"backfill {backfill_id!r}" if backfill_id else "backfill that has not ended"
        raise ConfigError(f"no {what}; known: {', '.join(one.id for one in known) or 'none'} (rag backfill --list)")
    return wanted[-1]


def list_backfills(store: Store) -> list[Backfill]:
    """Return all backfills, the oldest first."""
    filesystem, root = store.filesystem()
    folder = pafs.FileSelector(f"{root.rstrip('/')}/{_FOLDER}", allow_not_found=True)
    paths = [info.path for info in filesystem.get_file_info(folder) if info.path.endswith(".json")]
    return [_read(filesystem, path) for path in sorted(paths)]


def _read(filesystem: pafs.FileSystem, path: str) -> Backfill:
    with filesystem.open_input_stream(path) as stream:
        content: dict[str, Any] = json.loads(stream.read())
    content["settings"] = Settings(**content["settings"])
    content["created_at"] = datetime.fromisoformat(content["created_at"])
    content["runs"] = tuple(_run(run) for run in content["runs"])
    return Backfill(**content)


def _run(content: dict[str, Any]) -> BackfillRun:
    outcomes = {key: Outcome(**one) for key, one in content["outcomes"].items()}
    started = datetime.fromisoformat(content["started_at"])
    keys = tuple(content["partition_keys"])
    return BackfillRun(**{**content, "outcomes": outcomes, "started_at": started, "partition_keys": keys})


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
