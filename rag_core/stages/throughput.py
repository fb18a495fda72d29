"""How fast the stages were, from what each commit says of the work it took."""

import json
from dataclasses import dataclass

from rag_core.tables.delta import ensure_table
from rag_core.tables.store import Store

_COMMITS = 20


@dataclass(frozen=True)
class _Measure:
    """Where a stage's work and time stand in the `measured` entry of its commits."""

    table: str
    work: str
    steps: tuple[str, ...]


_MEASURES = {
    "parse": _Measure("documents", "parsed", ("parse",)),
    "chunk": _Measure("chunks", "documents_chunked", ("chunk",)),
    "embed": _Measure("embeddings", "embedded", ("embed",)),
    "index": _Measure("index_partitions", "upserted", ("upsert", "flush", "verify")),
}


def throughput(store: Store) -> dict[str, float]:
    """Measure each step's work per second over its last commits.

    Returns:
        Objects/s of `parse`, documents/s of `chunk`, texts/s of `embed`, rows/s of `index`; a step that never ran is
        missing. The start of Spark or of the model is part of the time, so small runs look slower than large ones.
    """
    return {step: rate for step, measure in _MEASURES.items() if (rate := _rate(store, measure)) is not None}


def _rate(store: Store, measure: _Measure) -> float | None:
    work = seconds = 0.0
    for entry in ensure_table(store, measure.table).history(_COMMITS):
        measured = json.loads(entry.get("measured", "{}"))
        done = measured.get("totals", {}).get(measure.work, 0)
        if done:
            work += done
            seconds += sum(measured["seconds"].get(step, 0.0) for step in measure.steps)
    return work / seconds if work and seconds else None
