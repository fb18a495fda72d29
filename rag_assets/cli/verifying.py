"""`rag verify`: does Milvus hold what the ledger says, and if not, mend just that."""

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from rag_assets.cli.output import CONSOLE, ERRORS, print_json, table
from rag_core.config import RagConfig
from rag_core.config_loader import load_config
from rag_core.errors import ConfigError
from rag_core.index.anti_entropy import SAMPLES, PartitionState, alias_finding, partitions_of, verify_partition
from rag_core.index.client import IndexClient, connect
from rag_core.index.comparison import KINDS
from rag_core.index.ledger import LedgerTables
from rag_core.index.mending import Repair, repair
from rag_core.index.publish import point_alias
from rag_core.partitions import all_partition_keys, keys_by_source, partition_keys_of
from rag_core.stages.consistency import held_back, ledger_tables
from rag_core.stages.publication import Manifest, latest_manifest
from rag_core.tables.store import Store

Item = TypeVar("Item")

_COLUMNS = ("partition", "ledger", "index", *KINDS)


@dataclass
class _Outcome:
    """What was found, and done: one state for each partition, repairs of those that were not clean."""

    collection: str
    states: list[PartitionState] = field(default_factory=list)
    repairs: list[Repair] = field(default_factory=list)
    alias: str | None = None
    alias_mended: bool = False

    @property
    def is_clean(self) -> bool:
        """Whether all is as it must be at the end."""
        states = {state.partition_key: state for state in self.states}
        states |= {item.after.partition_key: item.after for item in self.repairs}
        return all(state.is_clean for state in states.values()) and (self.alias is None or self.alias_mended)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, for machines."""
        return {
            "collection": self.collection,
            "is_clean": self.is_clean,
            "alias": self.alias,
            "alias_mended": self.alias_mended,
            "partitions": [state.to_dict() for state in self.states],
            "repairs": [item.to_dict() for item in self.repairs],
        }


def verify(
    mend: Annotated[bool, typer.Option("--repair", help="Mend the rows that differ, and only those.")] = False,
    source: Annotated[list[str] | None, typer.Option(help="Only this source; may be repeated.")] = None,
    partition: Annotated[list[str] | None, typer.Option(help="Only this partition; may be repeated.")] = None,
    collection: Annotated[str, typer.Option(help="Another collection than the one that is served.")] = "",
    samples: Annotated[
        int, typer.Option(min=0, help="Rows of each partition to search by their own vectors.")
    ] = SAMPLES,
    seed: Annotated[int, typer.Option(help="Another number draws other rows.")] = 0,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Compare Milvus with the ledger, row by row; exit code 1 if they differ in the end."""
    config = load_config().config
    store = Store.of(config.store)
    manifest = latest_manifest(store)
    tables = ledger_tables(store, config, collection)
    only = _selected(config, source, partition)
    outcome = _Outcome(tables.collection)
    with connect(config.index, store) as client:
        if manifest is not None and manifest.collection == tables.collection:
            outcome.alias = alias_finding(client, manifest)
        partitions = only or partitions_of(client, tables, all_partition_keys(config))
        states = (
            verify_partition(client, tables, key, samples=samples, seed=seed, is_known=is_known)
            for key, is_known in partitions.items()
        )
        outcome.states += _with_bar(states, "compared", len(partitions), quiet=json_output)
        if mend:
            unclean = [state for state in outcome.states if not state.is_clean]
            outcome.repairs += _not_from_bad_tables(tables, config, unclean)
            held = {item.before.partition_key for item in outcome.repairs}
            dirty = {state.partition_key: state.is_known for state in unclean if state.partition_key not in held}
            repairs = repair(client, tables, dirty, samples=samples, seed=seed)
            outcome.repairs += _with_bar(repairs, "mended", len(dirty), quiet=json_output) if dirty else ()
            _mend_alias(client, manifest, outcome)
    if json_output:
        print_json(outcome.to_dict())
    else:
        _show(outcome, mend=mend)
    if not outcome.is_clean:
        raise typer.Exit(1)


def _selected(config: RagConfig, sources: list[str] | None, partitions: list[str] | None) -> dict[str, bool]:
    """Return the partitions that were asked for; none means all, and those that nobody knows."""
    try:
        keys = [key for name in sources or () for key in partition_keys_of(config, name)]
        keys_by_source(config, partitions or ())
    except KeyError as error:
        raise ConfigError(error.args[0]) from None
    return dict.fromkeys([*keys, *(partitions or ())], True)


def _not_from_bad_tables(tables: LedgerTables, config: RagConfig, unclean: list[PartitionState]) -> list[Repair]:
    """Leave partitions alone whose tables fail a blocking test: what is written to Milvus comes from there."""
    keys = [state.partition_key for state in unclean if state.is_known]
    held = held_back(tables, config, keys, run_id=f"rag-verify-{uuid.uuid4().hex[:12]}")
    return [
        Repair(state, state, skipped=f"the tables that its rows come from are wrong: {held[state.partition_key]}")
        for state in unclean
        if state.partition_key in held
    ]


def _mend_alias(client: IndexClient, manifest: Manifest | None, outcome: _Outcome) -> None:
    if outcome.alias is not None and manifest is not None:
        point_alias(client, manifest.alias, manifest.collection)
        outcome.alias_mended = True


def _with_bar(items: Iterable[Item], what: str, total: int, *, quiet: bool) -> Iterator[Item]:
    """Pass items on, with a bar on a terminal."""
    columns = (TextColumn(f"partitions {what}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=ERRORS, disable=quiet or not ERRORS.is_terminal, transient=True) as bars:
        task = bars.add_task(what, total=total)
        for item in items:
            yield item
            bars.advance(task)


def _show(outcome: _Outcome, *, mend: bool) -> None:
    rows = [_cells(state) for state in outcome.states]
    CONSOLE.print(table(f"{outcome.collection}: rows in the ledger, in Milvus, and differing", _COLUMNS, rows))
    if outcome.alias is not None:
        mended = ", and was pointed there" if outcome.alias_mended else ""
        CONSOLE.print(outcome.alias + mended, markup=False, highlight=False, soft_wrap=True)
    for item in outcome.repairs:
        CONSOLE.print(_repaired(item), markup=False, highlight=False, soft_wrap=True)
    for state in outcome.states if not mend else ():
        for line in _remarks(state):
            CONSOLE.print(line, markup=False, highlight=False, soft_wrap=True)
    if outcome.is_clean:
        CONSOLE.print("clean")
    elif not mend:
        ERRORS.print("not clean; mend these rows with: rag verify --repair", highlight=False)


def _cells(state: PartitionState) -> tuple[object, ...]:
    return (state.partition_key, state.ledger_rows, state.index_rows, *(state.counts[kind] for kind in KINDS))


def _remarks(state: PartitionState) -> Iterator[str]:
    for kind, ids in state.examples.items():
        yield f"{state.partition_key}: {state.counts[kind]:,} {kind}, such as {', '.join(ids)}"
    if not state.is_known:
        yield f"{state.partition_key}: a partition that neither configuration nor ledger has"
    if not state.is_settled and not state.is_clean:
        yield f"{state.partition_key}: a run is writing it or was cut off, which may be why it differs; rag run ends it"


def _repaired(item: Repair) -> str:
    key = item.before.partition_key
    if item.skipped:
        return f"{key}: left alone, {item.skipped}"
    outcome = "clean now" if item.after.is_clean else "still not clean"
    rest = f", {item.needs_run:,} rows are not in the tables as the ledger says: rag run" if item.needs_run else ""
    return f"{key}: {item.written:,} rows written, {item.deleted:,} deleted, {outcome}{rest}"
