"""An engine that fails on chosen partitions: for good, or until a partition was tried alone and failed once."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import PrivateAttr

from rag_core import ids
from rag_core.engine.base import Engine, ParseJob
from rag_core.engine.in_process import InProcessEngine
from rag_core.errors import PermanentError, TransientError
from rag_core.sources.base import SourceObject
from rag_core.stages.common import Progress, no_progress
from rag_core.tables.change import StagedFile
from resources.engine import EngineResource


@dataclass
class Faults:
    """Which partitions fail; outlives a run, as Dagster makes resources anew for each."""

    for_good: frozenset[str] = frozenset()
    once: set[str] = field(default_factory=set)
    parsed: list[tuple[str, ...]] = field(default_factory=list)


FAULTS = Faults()


class _FlakyEngine(InProcessEngine):
    def parse(
        self, items: Sequence[SourceObject], job: ParseJob, *, on_progress: Progress = no_progress
    ) -> tuple[StagedFile, ...]:
        buckets = job.config.buckets_of(job.source)
        keys = {ids.partition_key(item.source, ids.bucket_of(item.root_doc_id, buckets), buckets) for item in items}
        if bad := sorted(keys & FAULTS.for_good):
            raise PermanentError(f"{bad[0]} holds an object that nobody can read")
        if flaky := sorted(keys & FAULTS.once):
            if len(keys) == 1:
                FAULTS.once.remove(flaky[0])
            raise TransientError(f"the share with {flaky[0]} did not answer")
        FAULTS.parsed.append(tuple(sorted(keys)))
        return super().parse(items, job, on_progress=on_progress)


class FlakyEngineResource(EngineResource):
    """Takes the place of the engine."""

    _flaky: _FlakyEngine = PrivateAttr(default_factory=_FlakyEngine)

    def engine(self) -> Engine:
        return self._flaky

    def release(self) -> None:
        pass
