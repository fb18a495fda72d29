"""What is old enough to go from the tables that only grow, and what of it is still needed and stays.

Everything else is kept by need, not by age: what is served, and lanes and collections (`rag_core.stages.retention`),
versions and files of tables (`rag_core.tables.maintenance`), work files and pages (`rag_core.retention.leftovers`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError

from rag_core.config import RagConfig
from rag_core.errors import TransientError
from rag_core.retention.freshness import expired_alerts, expired_changes, expired_passes
from rag_core.retention.quality import expired_evaluations, expired_failures, expired_results, expired_verdicts
from rag_core.retention.sql import in_list, quoted
from rag_core.stages.publication import manifests
from rag_core.tables.delta import ensure_table
from rag_core.tables.store import Store

MANIFEST_DAYS: Final = 7
"""Manifests of publications that others followed are kept as long as the table versions that they name."""


@dataclass(frozen=True)
class Removed:
    """Rows that went from a table."""

    table: str
    rows: int


def remove_expired(store: Store, config: RagConfig, *, now: datetime, run_id: str) -> Iterator[Removed]:
    """Delete what `rag.yaml` does not keep any longer, table by table, and yield how many rows went.

    What is derived from rows that stay does not change: no latency, error budget, gate, verdict, rollback or open
    alert. A crash leaves the tables behind it as they were; the next run goes on. Changes go before passes and results
    after their failing rows, since the former are read with the latter, and feedback before the answers it is about.

    Raises:
        TransientError: Another process rewrote the same files; a further run tries again.
    """
    rules = (
        ("source_changes", expired_changes),
        ("passes", expired_passes),
        ("alerts", expired_alerts),
        ("quality_failures", expired_failures),
        ("quality_results", expired_results),
        ("retrieval_eval", expired_evaluations),
        ("verdicts", expired_verdicts),
        ("deletions", _expired_receipts),
        ("published_index", _expired_manifests),
        ("feedback", _older("given_at")),
        ("answers", _older("asked_at")),
        ("asked", _older("until")),
    )
    for table, rule in rules:
        where = rule(store, config, now)
        yield Removed(table, _delete(ensure_table(store, table), table, where, run_id) if where else 0)


def _delete(table: DeltaTable, name: str, where: str, run_id: str) -> int:
    try:
        done = table.delete(where, commit_properties=CommitProperties(custom_metadata={"run_id": run_id}))
    except CommitFailedError as error:
        raise TransientError(
            f"table {name}: another process rewrote its files while old rows were removed; run it again ({error})"
        ) from error
    return int(done["num_deleted_rows"] or 0)


def _older(column: str) -> Callable[[Store, RagConfig, datetime], str]:
    """Make the rule of a table of the service: rows go by their age alone."""
    return lambda _store, config, now: f"{column} < {quoted(now - timedelta(days=config.retention.answers_days))}"


def _expired_receipts(store: Store, config: RagConfig, now: datetime) -> str:
    return f"removed_at < {quoted(now - timedelta(days=config.retention.receipts_days))}"


def _expired_manifests(store: Store, config: RagConfig, now: datetime) -> str:
    """Keep, whatever their age, the newest manifest of each collection, and the newest by which it was gone back to."""
    kept: dict[tuple[str, bool], datetime] = {}
    for manifest in manifests(store):  # the newest first
        kept.setdefault((manifest.collection, manifest.rolled_back_from is None), manifest.published_at)
    old = f"published_at < {quoted(now - timedelta(days=MANIFEST_DAYS))}"
    return f"{old} AND NOT {in_list('published_at', kept.values())}" if kept else ""
