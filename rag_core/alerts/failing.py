"""Which jobs fail: folded from the runs that ended, in the order in which they did."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

PUBLICATION: Final = "publication"

FORGOTTEN_AFTER: Final = timedelta(hours=24)
"""A failed run is no alert any more after this long: one that was made once, by hand, is never made again."""


@dataclass(frozen=True)
class EndedRun:
    """A run that succeeded or failed.

    Attributes:
        scope: Job, with its source or assets where a run is about some only: a success ends failures of its scope.
        run_id: Dagster run.
        at: When it ended.
        failed: Whether it failed, or was to publish the index and did not.
        publishes: Whether it was to publish the index.
        message: Why it failed.
    """

    scope: str
    run_id: str
    at: datetime
    failed: bool
    publishes: bool = False
    message: str = ""


@dataclass(frozen=True)
class FailingRun:
    """The newest failed run of a scope that has not succeeded since; `since` is when the first of them failed."""

    scope: str
    run_id: str
    at: datetime
    since: datetime
    publishes: bool
    message: str

    @property
    def is_waiting(self) -> bool:
        """Whether nothing was published because the index is not complete or judged: that can be so for a while."""
        return self.publishes and any(words in self.message for words in (" is incomplete", " must be judged first"))


def fold(failing: Mapping[str, FailingRun], ended: Iterable[EndedRun], now: datetime) -> dict[str, FailingRun]:
    """Add runs to what fails; those that were added before have no effect.

    Args:
        failing: Scope -> what failed until now.
        ended: Runs in the order in which they ended; publications are one scope, whatever job made them.
        now: Failures of other jobs are forgotten after a day.
    """
    known = dict(failing)
    for run in ended:
        scope = PUBLICATION if run.publishes else run.scope
        before = known.get(scope)
        if before is not None and before.at > run.at:
            continue
        if not run.failed:
            known.pop(scope, None)
        else:
            since = before.since if before else run.at
            known[scope] = FailingRun(scope, run.run_id, run.at, since, run.publishes, run.message)
    return {scope: one for scope, one in known.items() if one.publishes or now - one.at < FORGOTTEN_AFTER}
