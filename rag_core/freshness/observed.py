"""What a look at a source returns, and what it leaves to the next."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

import pyarrow as pa

_TIMES: Final = ("looked_at", "started_at")


@dataclass(frozen=True)
class LookCursor:
    """What one look leaves to the next, besides the files in the store.

    Attributes:
        look: Number of the newest look that found something.
        looked_at: When the newest complete listing began.
        started_at: When the listing that is going on began.
        position: Where it goes on; None: nothing is going on.
    """

    look: int = 0
    looked_at: datetime | None = None
    started_at: datetime | None = None
    position: str | None = None

    def dumps(self) -> str:
        """Write the cursor as JSON."""
        times = {name: time.isoformat() for name in _TIMES if (time := getattr(self, name)) is not None}
        return json.dumps({"look": self.look, "position": self.position, **times})

    @classmethod
    def loads(cls, text: str | None) -> "LookCursor":
        """Read a cursor; what is empty or not a cursor gives one that knows nothing, which is always safe."""
        try:
            values: dict[str, Any] = json.loads(text or "{}")
            times = {name: datetime.fromisoformat(values[name]) for name in _TIMES if name in values}
            return cls(look=int(values.get("look", 0)), position=values.get("position"), **times)
        except (ValueError, TypeError, AttributeError):
            return cls()


@dataclass(frozen=True)
class Problem:
    """Why a look was given up; nothing was changed by it. The message says what to do."""

    kind: Literal["listing_failed", "implausible_shrink"]
    message: str


@dataclass(frozen=True)
class Observation:
    """One look.

    Attributes:
        source: Name of the source.
        look: Number of the newest look that found something: this one, if it did.
        seen_at: When the listing had ended. A run whose own listing begins then or later covers all of the changes.
        changes: Rows of `source_changes` that this look appended.
        objects: Objects that were listed, or told of.
        complete: Whether the source was listed to its end. If not, and there is no problem, the next look goes on.
        problem: Why the look was given up; None if it was not.
        unsettled: Objects that are being written, and left to the next look.
        cursor: For the next look.
        seconds: Wall-clock time.
    """

    source: str
    look: int
    seen_at: datetime
    changes: pa.Table
    objects: int
    complete: bool
    problem: Problem | None
    unsettled: int
    cursor: LookCursor
    seconds: float

    @property
    def partition_keys(self) -> list[str]:
        """Partitions with changes, sorted."""
        return sorted(set(self.changes["partition_key"].to_pylist()))
