"""`rag status` and `rag inspect`: what the tables hold."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any

import pyarrow.compute as pc
import typer

from rag_assets.cli.output import CONSOLE, print_json, print_json_lines, table
from rag_core.config import RagConfig
from rag_core.config_loader import load_config
from rag_core.stages.publication import Manifest, generations, incomplete_partitions, latest_manifest
from rag_core.status import SourceStatus, source_status
from rag_core.tables.delta import TableSlice
from rag_core.tables.store import Store

app = typer.Typer(no_args_is_help=True, help="Look at the rows of a table.")

_CELL_CHARS = 160

Json = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
SourceName = Annotated[str | None, typer.Option("--source", help="Only this source.")]
Contains = Annotated[str | None, typer.Option("--uri", help="Only documents whose uri contains this.")]
DocId = Annotated[str | None, typer.Option("--doc-id", help="Only this document.")]
ChunkId = Annotated[str | None, typer.Option("--chunk-id", help="Only this chunk.")]
Limit = Annotated[int, typer.Option("--limit", help="At most so many rows; 0: all.")]


def status(json_output: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False) -> None:
    """Per source: documents by status, chunks, vectors, last change seen and indexed."""
    loaded = load_config()
    store = Store.of(loaded.config.store)
    sources = source_status(store, loaded.config)
    manifest = latest_manifest(store)
    if json_output:
        print_json(
            {
                "sources": [item.to_dict() for item in sources],
                "published": None if manifest is None else manifest.__dict__,
            }
        )
        return
    for item in sources:
        CONSOLE.print(_source_lines(item), highlight=False)
    if manifest is None:
        CONSOLE.print("nothing is published yet: rag run")
    else:
        CONSOLE.print(
            f"published {manifest.collection} as {manifest.alias}, {manifest.published_at:%Y-%m-%d %H:%M:%S} UTC\n"
            f"  {manifest.documents:,} documents, {manifest.chunks:,} chunks, {manifest.model}"
            + ("" if manifest.ann_recall_at_10 is None else f", ANN recall@10 {manifest.ann_recall_at_10:.3f}"),
            highlight=False,
        )
        _print_other_index(store, loaded.config, manifest)


def _print_other_index(store: Store, config: RagConfig, manifest: Manifest) -> None:
    """Say so if what is served is not what rag.yaml asks for."""
    if manifest.rolled_back_from:
        CONSOLE.print(f"  rolled back from {manifest.rolled_back_from}", highlight=False)
    known = generations(store, config)
    if known.served is None and not known.lost:
        return
    waiting = sum(incomplete_partitions(store, known.target).values())
    state = f"{waiting:,} chunks and documents wait for it" if waiting else "it is complete"
    CONSOLE.print(f"rag.yaml asks for {known.target.collection}: {state}; see rag plan", highlight=False)
    if known.lost:
        CONSOLE.print(known.lost, highlight=False, markup=False)


def _source_lines(item: SourceStatus) -> str:
    def at(time: datetime | None) -> str:
        return "never" if time is None else f"{time:%Y-%m-%d %H:%M:%S} UTC"

    return (
        f"source {item.source}\n"
        f"  {item.documents:,} documents: {item.ok:,} ok, {item.empty:,} empty, {item.rejected:,} rejected\n"
        f"  {item.chunks:,} chunks, {item.vectors:,} vectors, {item.indexed:,} indexed\n"
        f"  last change seen {at(item.last_change_seen)}, last indexed {at(item.last_indexed)}"
    )


@app.command("documents")
def documents(
    source: SourceName = None,
    uri: Contains = None,
    doc_id: DocId = None,
    status_is: Annotated[str | None, typer.Option("--status", help="ok, empty or rejected.")] = None,
    text: Annotated[bool, typer.Option("--text", help="With the text.")] = False,
    limit: Limit = 0,
    json_output: Json = False,
) -> None:
    """Documents: where they are, what became of them, and why."""
    columns = ["source", "uri", "doc_id", "external_id", "status", "reason", "mime", "title", "language"]
    where = _where(source=source, uri=uri, doc_id=doc_id, status=status_is)
    shown = ["status", "title", "uri", "reason"] if not text else ["uri", "text"]
    _show("documents", [*columns, *(["text"] if text else [])], shown, where, limit, json_output)


@app.command("chunks")
def chunks(
    source: SourceName = None,
    uri: Contains = None,
    doc_id: DocId = None,
    chunk_id: ChunkId = None,
    limit: Limit = 0,
    json_output: Json = False,
) -> None:
    """Chunks: text, span, headings, page, tokens."""
    columns = ["chunk_id", "doc_id", "uri", "ordinal", "heading_path", "char_start", "char_end", "page",
               "token_count", "context", "text"]  # fmt: skip
    shown = ["uri", "ordinal", "heading_path", "page", "token_count", "text"]
    _show(
        "chunks", columns, shown, _where(source=source, uri=uri, doc_id=doc_id, chunk_id=chunk_id), limit, json_output
    )


@app.command("embeddings")
def embeddings(
    partition: Annotated[str | None, typer.Option(help="Only this partition.")] = None,
    doc_id: DocId = None,
    chunk_id: ChunkId = None,
    vectors: Annotated[bool, typer.Option("--vectors", help="With the vectors.")] = False,
    limit: Limit = 0,
    json_output: Json = False,
) -> None:
    """Embeddings: which text, by which model."""
    columns = ["partition_key", "chunk_id", "doc_id", "text_hash", "model_fingerprint"]
    where = _where(partition_key=partition, doc_id=doc_id, chunk_id=chunk_id)
    shown = ["partition_key", "chunk_id", "text_hash", *(["vector"] if vectors else [])]
    _show("embeddings", [*columns, *(["vector"] if vectors else [])], shown, where, limit, json_output)


def _where(*, uri: str | None = None, **equal: str | None) -> pc.Expression | None:
    terms = [pc.field(name) == value for name, value in equal.items() if value is not None]
    if uri is not None:
        terms.append(pc.match_substring(pc.field("uri"), uri))
    where = None
    for term in terms:
        where = term if where is None else where & term
    return where


def _show(
    name: str, columns: list[str], shown: list[str], where: pc.Expression | None, limit: int, json_output: bool
) -> None:
    """Print every column for machines, and for people those that fit a line."""
    rows = _rows(TableSlice.newest(Store.of(load_config().config.store), name), columns, where, limit)
    if json_output:
        print_json_lines(rows)
    else:
        CONSOLE.print(table(name, shown, ([_readable(row[column]) for column in shown] for row in rows)))


def _readable(value: Any) -> Any:
    """Shorten a value for a table: headings as a path, long texts to their beginning, local files without `file://`."""
    if isinstance(value, list):
        value = " > ".join(str(item) for item in value)
    if not isinstance(value, str):
        return value
    text = " ".join(value.removeprefix("file://").split())
    return text if len(text) <= _CELL_CHARS else text[: _CELL_CHARS - 1] + "…"


def _rows(current: TableSlice, columns: list[str], where: pc.Expression | None, limit: int) -> Iterator[dict[str, Any]]:
    if limit:
        yield from current.head(limit, columns, where).to_pylist()
        return
    for batch in current.batches(columns, where, batch_rows=1_024):
        yield from batch.to_pylist()
