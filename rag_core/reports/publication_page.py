"""The page of a verdict: whether an index may be served and why, in words first, then everything that was measured."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from rag_core.config import RagConfig
from rag_core.reports.formats import NOTHING, measure, number, render
from rag_core.reports.pages import FOLDER, ReportPage, keep_newest, safe_name, write_page
from rag_core.reports.publication_facts import PublicationFacts, publication_facts
from rag_core.stages.verdict import Verdict
from rag_core.tables.store import Store

PUBLICATIONS: Final = f"{FOLDER}/publications"
_KEPT_PAGES: Final = 200
_MODES: Final = ("dense", "bm25", "hybrid")


def write_publication_report(
    store: Store, config: RagConfig, verdict_row: Mapping[str, Any], manifest_rows: Iterable[Mapping[str, Any]] = ()
) -> ReportPage:
    """Write the page of a verdict, named by its id.

    Args:
        store: Holds the page, and `retrieval_eval` with the figures of each query.
        config: The floors that were held against the measures.
        verdict_row: Row of `verdicts`; its `report` need not be set yet: the page's path follows from the id.
        manifest_rows: Rows of `published_index`, in any order: what was served before, and is.

    Raises:
        KeyError: The row lacks a column, or a measure lacks a field.
    """
    verdict = Verdict.from_row(verdict_row)
    history = sorted(manifest_rows, key=lambda row: row["published_at"], reverse=True)
    facts = publication_facts(store, config, verdict)
    now = datetime.now(UTC)
    title = f"Verdict on {verdict.collection}"
    html = render(
        "publication.html",
        title=title,
        verdict=verdict,
        facts=facts,
        now=now,
        history=history,
        manifest=_manifest_of(verdict, history),
        evaluation=config.evaluation,
        modes=_MODES,
        back="../index.html",
    )
    page = write_page(
        store,
        publication_path(verdict.verdict_id),
        html,
        title=title,
        written_at=now.isoformat(timespec="seconds"),
        tone="good" if verdict.passed else "bad",
        facts=_card(verdict, facts),
    )
    keep_newest(store, PUBLICATIONS, _KEPT_PAGES)
    return page


def publication_path(verdict_id: str) -> str:
    """Return where the page of a verdict lies, relative to the store."""
    return f"{PUBLICATIONS}/{safe_name(verdict_id)}.html"


def _manifest_of(verdict: Verdict, history: list[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the collection's first manifest since the verdict, else its newest one; None if it never was served."""
    own = [row for row in history if row["collection"] == verdict.collection]
    since = [row for row in own if row["published_at"] >= verdict.judged_at]
    chosen = since[-1] if since else own[0] if own else None
    if chosen is None:
        return None
    texts = ("settings", "search_params", "table_versions")
    return {**chosen, **{name: json.loads(chosen[name]) for name in texts}}


def _card(verdict: Verdict, facts: PublicationFacts) -> dict[str, str]:
    recall, hybrid = facts.recall_of("whole collection"), [one for one in facts.relevance if one.mode == "hybrid"]
    leaked = facts.leaks["leaked"] if facts.leaks is not None else None
    return {
        "verdict": "may be served" if verdict.passed else f"refused: {verdict.reasons[0]}",
        "compared with": verdict.against or "nothing",
        "chunks": number(verdict.chunks),
        "ANN recall@10": measure(recall),
        "nDCG@10, hybrid": measure(hybrid[0].new["ndcg_at_10"]) if hybrid else NOTHING,
        "rows leaked": number(leaked),
    }
