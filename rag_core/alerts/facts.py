"""What rules look at. Read by `rag_core.alerts.reading` from the store, and by `sensors` from Dagster."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class StuckFact:
    """A partition whose changes do not get through; `stage`, `message` and `run_id` are of the last try."""

    partition_key: str
    objects: int
    since: datetime
    attempts: int
    failure: str
    stage: str = ""
    message: str = ""
    run_id: str = ""


@dataclass(frozen=True)
class VerdictFact:
    """The newest verdict on what rag.yaml asks for; `is_served` says whether it is what queries reach."""

    collection: str
    judged_at: datetime
    passed: bool
    reasons: tuple[str, ...]
    is_served: bool


@dataclass(frozen=True)
class CheckFact:
    """The newest evaluation of an asset check."""

    passed: bool
    at: datetime
    run_id: str
    description: str


@dataclass(frozen=True)
class ProblemFact:
    """Why looks at a source find nothing; `kind` is listing_failed or implausible_shrink."""

    source: str
    kind: str
    message: str
    since: datetime

    @property
    def is_shrink(self) -> bool:
        """Whether the source was listed, but too much of it is gone to be believed."""
        return self.kind == "implausible_shrink"


@dataclass(frozen=True)
class PoisonFact:
    """Notifications that were set aside because they could not be understood."""

    source: str
    count: int
    folder: str
    examples: tuple[str, ...]


@dataclass(frozen=True)
class LookFact:
    """When the newest completed look at a source began."""

    source: str
    started_at: datetime
