"""A source whose listing a test makes up, looked at in a real store; and what its recorded changes add up to."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rag_core import ids
from rag_core.config import FilesSource, RagConfig, StoreConfig
from rag_core.freshness.changes import load_changes
from rag_core.freshness.observation import LookCursor, Observation, observe
from rag_core.sources.base import SourceObject
from rag_core.tables.store import Store

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """Return a time so long after START."""
    return START + timedelta(seconds=seconds)


def listed(key: str, fingerprint: str = "1", modified_at: datetime | None = LONG_AGO) -> SourceObject:
    """Return an object of the source `handbook`."""
    return SourceObject("handbook", key, f"file:///{key}", fingerprint, 1, modified_at)


def objects(states: Mapping[str, str]) -> list[SourceObject]:
    """Return objects by key and fingerprint, last modified long ago."""
    return [listed(key, fingerprint) for key, fingerprint in states.items()]


@dataclass
class Looking:
    """Looks one after the other, each with the cursor of the one before, as a sensor does."""

    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)
    cursor: LookCursor = field(default_factory=LookCursor)
    store_name: str = "store"

    @property
    def store(self) -> Store:
        return Store(str(self.folder / self.store_name))

    @property
    def root(self) -> Path:
        return self.folder / "corpus"

    @property
    def config(self) -> RagConfig:
        source = FilesSource.model_validate({"kind": "files", "name": "handbook", "root": self.root, **self.source})
        freshness = {"settle_s": 2, "settle_max_s": 60, **self.settings.get("freshness", {})}
        return RagConfig.model_validate(
            {"store": StoreConfig(root=self.store.root), "sources": (source,), **self.settings, "freshness": freshness}
        )

    def look(
        self, listing: Iterable[SourceObject] | None = None, *, now: datetime = START, **options: Any
    ) -> Observation:
        """Look; the cursor goes through its text, as it does in a sensor."""
        cursor = LookCursor.loads(self.cursor.dumps())
        seen = observe(self.store, self.config, "handbook", now=now, cursor=cursor, listing=listing, **options)
        self.cursor = seen.cursor
        return seen

    def rows(self) -> list[dict[str, Any]]:
        """Return all recorded changes in order of looks."""
        rows: list[dict[str, Any]] = load_changes(self.store, source="handbook").to_pylist()
        return sorted(rows, key=lambda row: row["look"])

    def replayed(self) -> set[str]:
        """Return the ids of the objects that there are by the changes; each must follow from those before."""
        there: set[str] = set()
        for row in self.rows():
            assert (row["object_id"] in there) == (row["kind"] != "new"), row
            if row["kind"] == "new":
                there.add(row["object_id"])
            elif row["kind"] == "deleted":
                there.remove(row["object_id"])
        return there


def kinds(seen: Observation) -> dict[str, str]:
    """Return the kind of each change by object."""
    return dict(zip(seen.changes["object_id"].to_pylist(), seen.changes["kind"].to_pylist(), strict=True))


def expected(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    """Return the same from two listings, key by key."""
    found = dict.fromkeys(after.keys() - before.keys(), "new")
    found |= dict.fromkeys(before.keys() - after.keys(), "deleted")
    found |= {key: "changed" for key in after.keys() & before.keys() if after[key] != before[key]}
    return {object_id(key): kind for key, kind in found.items()}


def object_id(key: str) -> str:
    """Return the id of an object of the source `handbook`."""
    return ids.doc_id("handbook", key)
