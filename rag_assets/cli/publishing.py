"""`rag plan`, `rag publish`, `rag rollback`, `rag abandon`: how one index takes the place of another."""

import uuid
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.table import Table

from rag_assets.cli.output import CONSOLE, ERRORS, print_json, print_text, table
from rag_core.config_loader import load_config
from rag_core.stages.plan import IndexPlan, Plan
from rag_core.stages.staleness import Stale
from rag_core.tables.store import Store

Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]


def plan(
    source: Annotated[list[str] | None, typer.Option("--source", help="Only this source; may be repeated.")] = None,
    by_partition: Annotated[
        bool, typer.Option("--by-partition", help="Also list the partitions that are not up to date.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Say what the next run would do: documents, texts to embed, rows, time, size. Nothing is changed."""
    from rag_core.stages.plan import make_plan

    config = load_config().config
    made = make_plan(Store.of(config.store), config, sources=source)
    if json_output:
        print_json(made.to_dict(by_partition=by_partition))
        return
    columns = ("source", "new", "changed", "deleted", "unchanged")
    rows = [(one.source, one.new, one.changed, one.deleted, one.unchanged) for one in made.sources]
    CONSOLE.print(table("objects of the sources", columns, rows))
    for number, index in enumerate(made.indexes):
        CONSOLE.print()
        CONSOLE.print(index_lines(index, is_target=number == len(made.indexes) - 1), highlight=False)
    if by_partition:
        CONSOLE.print()
        CONSOLE.print(stale_table(made.partitions))
    _print_consequence(made)


def stale_table(partitions: Sequence[Stale]) -> Table:
    """Show the work on partitions; of two indexes that are kept up to date the work is added up."""
    columns = ("partition", "to parse", "deleted", "to cut", "to embed", "reused", "to write", "to delete")
    rows = []
    for stale in partitions:
        work = stale.work
        counts = (work.documents_to_cut, work.embeds, work.texts_reused, work.writes, work.rows_to_delete)
        rows.append((stale.partition_key, stale.objects.to_parse, stale.objects.deleted, *counts))
    return table(f"{len(rows):,} partitions are not up to date", columns, rows)


def index_lines(index: IndexPlan, *, is_target: bool) -> str:
    """Say what is to be done for an index, a line for each kind of work."""
    role = "served" if index.served else "to be built" if is_target else "kept up to date"
    about = "about " if index.is_estimate else ""
    steps = ", ".join(f"{step} {seconds:,.0f} s" for step, seconds in index.seconds.items() if seconds)
    return (
        f"index {index.collection} ({role})\n"
        f"  {index.documents_to_cut:,} documents to cut\n"
        f"  {about}{index.texts_to_embed:,} texts to embed, {index.texts_reused:,} vectors reused\n"
        f"  {about}{index.rows_to_write:,} rows to write, {index.rows_to_delete:,} to delete\n"
        f"  {about}{index.bytes_of_vectors / 1024**2:,.1f} MiB of vectors, in the store and in Milvus each\n"
        f"  time from measured throughput: {steps or 'nothing to do, or nothing measured yet'}"
    )


def _print_consequence(made: Plan) -> None:
    if not made.changed_settings:
        return
    CONSOLE.print()
    CONSOLE.print("rag.yaml asks for another index than is served:", highlight=False)
    for change in made.changed_settings:
        print_text(CONSOLE, f"  {change}")
    if made.refused:
        print_text(
            CONSOLE,
            f"{made.indexes[-1].reembed_share:.0%} of the served chunks would be embedded anew: `rag run` refuses, "
            "`rag run --rebuild` does it",
        )


def publish(
    again: Annotated[bool, typer.Option("--again", help="Even if it was rolled back from.")] = False,
) -> None:
    """Judge the index that rag.yaml asks for, and publish it if it passes."""
    from rag_assets.runner import run_publication

    summary = run_publication(load_config(), again=again)
    for failure in summary.failures:
        print_text(ERRORS, failure.message)
    if summary.failures:
        raise typer.Exit(1)
    CONSOLE.print("published" if summary.commits else "published already; nothing changed", highlight=False)


def rollback() -> None:
    """Serve the collection that was published before, at once; what must not be found is removed from it first."""
    from rag_core.index.client import connect
    from rag_core.stages.rollback import rollback as roll_back

    config = load_config().config
    store = Store.of(config.store)
    with connect(config.index, store) as client:
        done = roll_back(store, config, client, run_id=_run_id("rollback"))
    print_text(
        CONSOLE,
        f"{done.manifest.collection} is served again ({done.manifest.model}, {done.manifest.chunks:,} chunks); "
        f"{done.before} is kept\n"
        f"{done.withdrawn:,} rows withdrawn of documents that are gone or have other readers since\n"
        "bring it up to date with `rag run`; the index that rag.yaml asks for is not published by itself again",
    )


def abandon() -> None:
    """Remove the index that is being built and was never published, with all its rows."""
    from rag_core.index.client import connect
    from rag_core.stages.publication import generations
    from rag_core.stages.retention import abandon as remove

    config = load_config().config
    store = Store.of(config.store)
    with connect(config.index, store) as client:
        known = generations(store, config)
        removed = remove(store, known, client, run_id=_run_id("abandon"))
    CONSOLE.print(f"removed {', '.join(removed)}" if removed else "nothing to remove", highlight=False)
    if known.target.collection in removed:
        CONSOLE.print("rag.yaml still asks for it: set it back, or the next run builds it again", highlight=False)


def _run_id(command: str) -> str:
    return f"{command}-{uuid.uuid4().hex[:12]}"
