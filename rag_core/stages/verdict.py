"""The verdict on a generation: may queries reach it? Measured before it is published, kept with its reasons.

A small change of what is served is covered by the verdict before it; the recalls are measured again when enough
changed.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, write_deltalake
from deltalake.exceptions import DeltaError

from rag_core import ids
from rag_core.generation import Generation
from rag_core.schemas import VERDICTS
from rag_core.stages.common import anti_join
from rag_core.stages.publication import STAGE_TABLES, Generations, incomplete_partitions
from rag_core.tables.delta import TableSlice, ensure_table, newest_version
from rag_core.tables.store import Store

TABLE = "verdicts"


@dataclass(frozen=True)
class Verdict:
    """Whether a generation may be published, and why: one row of `verdicts`.

    Attributes:
        verdict_id: Digest of what was judged.
        collection: The generation's.
        against: Served collection that it was compared with; empty for the first.
        judged_at: When.
        run_id: Dagster run.
        passed: Whether it may be published.
        reasons: What it fails, as sentences; empty if it passed.
        search_params: Cheapest that meet the recall floor.
        measures: By kind: `ann` (Sweep), `relevance` (list), `regression` (list), `comparison`, `entropy` (list of
            unclean partitions), `leaks`, each as its own `to_dict` writes it; `settings`, a digest; `held`, the
            partitions that fail a blocking check.
        table_versions: Delta versions that were judged.
        chunks: Rows in the collection.
        report: Report page, relative to the store; empty if none was written.
    """

    verdict_id: str
    collection: str
    against: str
    judged_at: datetime
    run_id: str
    passed: bool
    reasons: tuple[str, ...]
    search_params: Mapping[str, Any]
    measures: Mapping[str, Any]
    table_versions: Mapping[str, int]
    chunks: int
    report: str = ""

    @property
    def ann_recall_at_10(self) -> float | None:
        """ANN recall that the search parameters reach; None if it was not measured."""
        recall = self.measures.get("ann", {}).get("recall")
        return None if recall is None else float(recall["overall"]["recall"])

    def to_row(self) -> dict[str, Any]:
        """Return the row of `verdicts`."""
        texts = ("reasons", "search_params", "measures", "table_versions")
        return {**asdict(self), **{name: json.dumps(getattr(self, name), sort_keys=True) for name in texts}}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Verdict":
        """Read what `to_row` wrote."""
        texts = ("search_params", "measures", "table_versions")
        read = {name: json.loads(row[name]) for name in texts}
        return cls(**{**row, **read, "reasons": tuple(json.loads(row["reasons"]))})


def newest_verdict(store: Store, collection: str) -> Verdict | None:
    """Return the newest verdict on a collection, or None."""
    rows = TableSlice.newest(store, TABLE).read(where=pc.field("collection") == collection)
    rows = rows.sort_by([("judged_at", "descending")]).slice(0, 1).to_pylist()
    return Verdict.from_row(rows[0]) if rows else None


def append_verdict(store: Store, verdict: Verdict) -> int:
    """Keep a verdict, and return the table's version."""
    properties = CommitProperties(custom_metadata={"run_id": verdict.run_id, "collection": verdict.collection})
    rows = pa.Table.from_pylist([verdict.to_row()], schema=VERDICTS)
    write_deltalake(ensure_table(store, TABLE), rows, mode="append", commit_properties=properties)
    return TableSlice.newest(store, TABLE).version


def judged_versions(store: Store) -> dict[str, int]:
    """Return the versions that a verdict given now is about."""
    return {name: newest_version(store, name) for name in STAGE_TABLES}


def settings_digest(generation: Generation) -> str:
    """Digest what the verdict is measured by: floors, query files, and the configured search parameters."""
    evaluation = generation.config.evaluation
    files = [path for one in evaluation.labelled for path in (one.queries, one.qrels)]
    contents = [ids.digest(path.read_text("utf-8", "replace")) for path in files if path.is_file()]
    settings = {"evaluation": evaluation.model_dump(mode="json"), "files": contents}
    return ids.fingerprint({**settings, "search_params": generation.config.index.search_params})


def why_judge(store: Store, known: Generations, *, asked: bool = False) -> str:
    """Say why the target must be judged now; empty if the verdict on it still holds or it is not complete.

    A verdict holds while the settings are the same and no more than `evaluation.reevaluate_share` of the collection
    changed since. One that refused is looked at again after any change; one that found something wrong (a blocking
    check, Milvus other than its ledger) always, because what mends that need not change the ledger.

    Args:
        store: Holds the tables.
        known: The target, and what is served.
        asked: A person asks: a refusal is looked at again even if nothing changed, since a latency may be another now.
    """
    target = known.target
    if incomplete_partitions(store, target):
        return ""
    last = newest_verdict(store, target.collection)
    if last is None:
        return "it was never judged"
    if known.served and last.against != known.served.collection:
        return f"{known.served.collection} is served now"
    return _why_again(store, target, last) or (
        "it was refused, and is asked for again" if asked and not last.passed else ""
    )


def _why_again(store: Store, target: Generation, last: Verdict) -> str:
    """Say why a verdict on the target does not hold any more; empty if it does."""
    when = f"{last.judged_at:%Y-%m-%d %H:%M} UTC"
    if last.measures.get("settings") != settings_digest(target):
        return "what it is measured by changed"
    if _built_since(store, target, last.judged_at):
        return f"all of it was written since the verdict of {when}"
    share = changed_share(store, target, last.table_versions["index_partitions"])
    if share > target.config.evaluation.reevaluate_share:
        return f"{share:.1%} of its chunks changed since the verdict of {when}"
    if not last.passed and (last.measures.get("held") or last.measures.get("entropy", {}).get("unclean")):
        return f"the verdict of {when} found something wrong, which may be mended"
    return "it was refused and has changed since" if share and not last.passed else ""


def _built_since(store: Store, generation: Generation, when: datetime) -> bool:
    """Tell whether no row is left that the verdict was about: the collection was removed, and built again."""
    ledger = TableSlice.newest(store, "index_partitions", lane=generation.collection)
    oldest = pc.min(ledger.read(["indexed_at"])["indexed_at"]).as_py()
    return oldest is not None and oldest > when


def changed_share(store: Store, generation: Generation, since_version: int) -> float:
    """Return how many ledger rows of a collection were added, changed or removed since a version, by its rows now."""
    now = TableSlice.newest(store, "index_partitions", lane=generation.collection)
    if now.version == since_version:
        return 0.0
    columns = ["chunk_id", "row_hash"]
    try:
        before = TableSlice(store, now.table, None, since_version, now.lane).read(columns)
    except (DeltaError, FileNotFoundError):
        return 1.0  # the version was vacuumed away
    rows = now.read(columns)
    differing = anti_join(rows, before, columns).num_rows + anti_join(before, rows, ["chunk_id"]).num_rows
    share: float = min(1.0, differing / max(1, rows.num_rows))
    return share
