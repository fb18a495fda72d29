"""What new commits of a table say of the work that they took: the entry `measured` that stages leave in each."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from rag_core.tables.delta import newest_table
from rag_core.tables.store import Store

WORKER: Final = "worker"
"""Entry of a commit of `embeddings`: the embedding worker's own report, as JSON."""

_AT_MOST: Final = 200


@dataclass(frozen=True)
class Commit:
    """What a stage left in a commit.

    Attributes:
        at_s: When it was made, in seconds since 1970.
        totals: Figures of its work, such as `parsed`.
        seconds: Wall-clock time of each step.
        worker: The embedding worker's report; empty for other tables and where nothing was embedded.
    """

    at_s: float
    totals: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    worker: Mapping[str, Any] = field(default_factory=dict)


class NewCommits:
    """Tells the commits of a stage's table that were not given before."""

    def __init__(self, store: Store, table: str, *, at_first: int = 0) -> None:
        """Name the table.

        Args:
            store: Holds it.
            table: Its name.
            at_first: Give so many of the newest commits at the first call.
        """
        self._store, self._table, self._at_first = store, table, at_first
        self._version: int | None = None

    def read(self) -> tuple[list[Commit], bool]:
        """Return commits that have something measured, oldest first, and whether this was the first call.

        After a long silence the newest 200 are given.
        """
        with newest_table(self._store, self._table) as table:
            version, known = int(table.version()), self._version
            is_first = known is None
            # one that was made anew begins at 0 again
            news = self._at_first if known is None else version - known if version >= known else version
            entries = table.history(min(news, _AT_MOST)) if news else []
        self._version = version
        return [_commit(entry) for entry in reversed(entries) if "measured" in entry], is_first


def _commit(entry: Mapping[str, Any]) -> Commit:
    measured = json.loads(entry["measured"])
    totals = {name: float(value) for name, value in measured["totals"].items() if isinstance(value, int | float)}
    worker = json.loads(entry.get(WORKER, "{}"))
    return Commit(float(entry["timestamp"]) / 1000, totals, measured["seconds"], worker)
