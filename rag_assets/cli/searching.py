"""`rag search`, `rag ask` and `rag eval`: questions to the published index."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer
from rich.markdown import Markdown
from rich.panel import Panel

from rag_assets.cli.output import CONSOLE, ERRORS, print_json, print_text, table
from rag_core.config import RagConfig
from rag_core.config_loader import load_config
from rag_core.errors import ConfigError
from rag_core.retrieval.filters import SearchFilters
from rag_core.retrieval.ranking import Mode
from rag_core.retrieval.search import Hit
from rag_core.tables.store import Store

if TYPE_CHECKING:
    from rag_core.evaluation.query_sets import QuerySet

Question = Annotated[str, typer.Argument(help="What to look for.")]
ModeOption = Annotated[str, typer.Option("--mode", help="dense, bm25 or hybrid.")]
TopK = Annotated[int, typer.Option("--top-k", min=1, max=1000, help="How many results.")]
SourceName = Annotated[list[str] | None, typer.Option("--source", help="Only this source; may be repeated.")]
Mime = Annotated[list[str] | None, typer.Option("--mime", help="Only this media type; may be repeated.")]
After = Annotated[datetime | None, typer.Option("--modified-after", help="Only documents changed since (UTC).")]
Before = Annotated[datetime | None, typer.Option("--modified-before", help="Only documents changed before (UTC).")]
Json = Annotated[bool, typer.Option("--json", help="JSON for machines.")]


def search(
    question: Question,
    mode: ModeOption = "hybrid",
    top_k: TopK = 10,
    source: SourceName = None,
    mime: Mime = None,
    modified_after: After = None,
    modified_before: Before = None,
    json_output: Json = False,
) -> None:
    """Search the published index; a result shows text, title, uri, page or headings, span and score."""
    from rag_core.retrieval.retriever import open_retriever

    filters = _filters(source, mime, modified_after, modified_before)
    with open_retriever(load_config().config) as retriever:
        hits = retriever.search(question, mode=_mode(mode), top_k=top_k, filters=filters)
    if json_output:
        print_json([hit.to_dict() for hit in hits])
        return
    for number, hit in enumerate(hits, start=1):
        CONSOLE.print(Panel(Markdown(hit.text), title=f"{number}. {_place(hit)}", title_align="left",
                            subtitle=f"{hit.uri}  [{hit.char_start}:{hit.char_end}]  score {hit.score:.4f}",
                            subtitle_align="left"))  # fmt: skip
    if not hits:
        ERRORS.print("nothing found")


def ask(
    question: Question,
    mode: ModeOption = "hybrid",
    top_k: TopK = 8,
    source: SourceName = None,
    json_output: Json = False,
) -> None:
    """Answer from quoted, cited sentences of the documents; no language model is involved."""
    from rag_core.answering.extractive import answer
    from rag_core.retrieval.retriever import open_retriever

    with open_retriever(load_config().config) as retriever:
        hits = retriever.search(question, mode=_mode(mode), top_k=top_k, filters=_filters(source))
        reply = answer(question, hits, embed=retriever.embed_for_answer)
    if json_output:
        print_json(asdict(reply))
        return
    print_text(CONSOLE, reply.text)
    if reply.citations:
        CONSOLE.print()
    for citation in reply.citations:
        where = f"page {citation.page}" if citation.page else " > ".join(citation.heading_path)
        parts = [part for part in (citation.title, where, citation.uri) if part]
        CONSOLE.print(f"[{citation.number}] " + "  ".join(parts), markup=False, highlight=False, soft_wrap=True)


def evaluate(
    source: Annotated[str | None, typer.Option("--source", help="The source that the judgements are about.")] = None,
    queries: Annotated[Path | None, typer.Option("--queries", help="JSONL with _id and text.")] = None,
    qrels: Annotated[Path | None, typer.Option("--qrels", help="TSV with query-id, corpus-id, score.")] = None,
    mode: Annotated[list[str] | None, typer.Option("--mode", help="Only this mode; may be repeated.")] = None,
    json_output: Json = False,
) -> None:
    """Measure retrieval: nDCG@10, recall@10, recall@100, MRR, per mode.

    Without files: on the labelled queries of rag.yaml, and on known-item queries of sources that have none.
    """
    from rag_core.evaluation.query_sets import query_sets
    from rag_core.evaluation.relevance import measure_relevance
    from rag_core.retrieval.retriever import open_retriever

    config = load_config().config
    given = _labelled(config, source, queries, qrels)
    modes = [_mode(name) for name in mode or ()] or None  # all that the index has
    with open_retriever(config) as retriever:
        sets = [given] if given else query_sets(Store.of(config.store), config)
        if not sets:
            raise ConfigError("nothing to measure with; give files, or set evaluation.labelled or known_items")
        measured = measure_relevance(retriever.client, retriever.target, sets, modes=modes)
    figures = [one.to_dict() for one in measured]
    columns = ("mode", "ndcg_at_10", "recall_at_10", "recall_at_100", "mrr", "queries")
    if json_output:
        by_mode = {row["mode"]: {column: row[column] for column in columns[1:]} for row in figures}
        print_json(by_mode if given else figures)
        return
    for one in sets:
        rows = [
            tuple(row[column] for column in columns)
            for row in figures
            if (row["query_set"], row["source"]) == (one.name, one.source)
        ]
        CONSOLE.print(table(f"{_title(one)} at {datetime.now(UTC):%Y-%m-%d %H:%M} UTC", columns, rows))


def _labelled(config: RagConfig, source: str | None, queries: Path | None, qrels: Path | None) -> "QuerySet | None":
    from rag_core.evaluation.query_sets import labelled_set

    if source is None and queries is None and qrels is None:
        return None
    if source is None or queries is None or qrels is None:
        raise ConfigError("--source, --queries and --qrels go together; leave all out to measure on those of rag.yaml")
    try:
        config.source(source)
    except KeyError as error:
        raise ConfigError(error.args[0]) from None
    return labelled_set(source, queries, qrels)


def _title(queries: "QuerySet") -> str:
    return queries.source if queries.name == "labelled" else "known-item queries (generated), all sources"


def _mode(name: str) -> Mode:
    if name not in get_args(Mode):
        raise ConfigError(f"--mode {name!r}; expected one of {', '.join(get_args(Mode))}")
    return name  # type: ignore[return-value]  # checked against Mode's own values


def _filters(
    source: list[str] | None,
    mime: list[str] | None = None,
    after: datetime | None = None,
    before: datetime | None = None,
) -> SearchFilters:
    return SearchFilters(
        sources=tuple(source) if source else None,
        mimes=tuple(mime) if mime else None,
        modified_after=after.replace(tzinfo=UTC) if after else None,
        modified_before=before.replace(tzinfo=UTC) if before else None,
    )


def _place(hit: Hit) -> str:
    parts = [hit.title or "", " > ".join(hit.heading_path), f"page {hit.page}" if hit.page else ""]
    return "  ".join(part for part in parts if part)
