"""`rag search`, `rag ask` and `rag eval`: questions to the published index."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich.markdown import Markdown
from rich.panel import Panel

from rag_assets.cli.output import CONSOLE, ERRORS, print_json, table
from rag_core.config_loader import load_config
from rag_core.errors import ConfigError
from rag_core.retrieval.filters import SearchFilters
from rag_core.retrieval.ranking import Mode
from rag_core.retrieval.search import Hit

Question = Annotated[str, typer.Argument(help="What to look for.")]
ModeOption = Annotated[str, typer.Option("--mode", help="dense, bm25 or hybrid.")]
TopK = Annotated[int, typer.Option("--top-k", min=1, max=1000, help="How many results.")]
SourceName = Annotated[list[str] | None, typer.Option("--source", help="Only this source; may be repeated.")]
Mime = Annotated[list[str] | None, typer.Option("--mime", help="Only this media type; may be repeated.")]
After = Annotated[datetime | None, typer.Option("--modified-after", help="Only documents changed since (UTC).")]
Before = Annotated[datetime | None, typer.Option("--modified-before", help="Only documents changed before (UTC).")]
Json = Annotated[bool, typer.Option("--json", help="JSON for machines.")]

_DEPTH = 100


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
    CONSOLE.print(reply.text, markup=False, highlight=False)
    if reply.citations:
        CONSOLE.print()
    for citation in reply.citations:
        where = f"page {citation.page}" if citation.page else " > ".join(citation.heading_path)
        parts = [part for part in (citation.title, where, citation.uri) if part]
        CONSOLE.print(f"[{citation.number}] " + "  ".join(parts), markup=False, highlight=False, soft_wrap=True)


def evaluate(
    source: Annotated[str, typer.Option("--source", help="The source that the judgements are about.")],
    queries: Annotated[Path, typer.Option("--queries", help="JSONL with _id and text.")],
    qrels: Annotated[Path, typer.Option("--qrels", help="TSV with query-id, corpus-id, score.")],
    mode: Annotated[list[str] | None, typer.Option("--mode", help="Only this mode; may be repeated.")] = None,
    json_output: Json = False,
) -> None:
    """Measure retrieval on labelled queries (BEIR layout): nDCG@10, recall@10, recall@100, MRR, per mode."""
    from rag_core.evaluation.beir import load_qrels, load_queries
    from rag_core.evaluation.evaluate import distinct
    from rag_core.evaluation.evaluate import evaluate as measure
    from rag_core.retrieval.retriever import open_retriever

    config = load_config().config
    try:
        config.source(source)
    except KeyError as error:
        raise ConfigError(error.args[0]) from None
    labelled, judgements = load_queries(queries), load_qrels(qrels)
    asked = {query: text for query, text in labelled.items() if query in judgements}
    modes = [_mode(name) for name in mode or get_args(Mode)]
    results: dict[str, dict[str, Any]] = {}
    with open_retriever(config) as retriever:
        vectors = retriever.embed_queries(list(asked.values()))
        for name in modes:
            run = {
                query: distinct(
                    hit.external_id or hit.doc_id  # an attachment counts as its mail
                    for hit in retriever.search_documents(
                        text, mode=name, depth=_DEPTH, filters=SearchFilters(sources=(source,)), vector=vector
                    )
                )
                for (query, text), vector in zip(asked.items(), vectors, strict=True)
            }
            outcome = measure(run, judgements)
            results[name] = {**outcome.means(), "queries": len(outcome.query_ids)}
    if json_output:
        print_json(results)
        return
    columns = ("mode", "ndcg_at_10", "recall_at_10", "recall_at_100", "mrr", "queries")
    rows = [(name, *(values[column] for column in columns[1:])) for name, values in results.items()]
    CONSOLE.print(table(f"{source} at {datetime.now(UTC):%Y-%m-%d %H:%M} UTC", columns, rows))


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
