"""What was found and answered, in the words of the API."""

from datetime import UTC, datetime
from typing import Any

from rag_core.retrieval.filters import SearchFilters
from rag_core.retrieval.search import Hit
from serving.answer_service import Finished
from serving.answers.model import AnswerResult, Citation, CitedSentence
from serving.api import models
from serving.index.snapshot import Snapshot
from serving.retrieval.query import Found


def filters_of(given: models.Filters) -> SearchFilters:
    """Return the restrictions of a request, without labels."""
    return SearchFilters(**{name: getattr(given, name) for name in models.Filters.model_fields})


def hit_view(hit: Hit) -> dict[str, Any]:
    """Return a chunk as `HitModel` has it."""
    values = hit.to_dict()
    changed_ms = values.pop("modified_at_ms")
    return values | {"modified_at": None if changed_ms is None else datetime.fromtimestamp(changed_ms / 1000, UTC)}


def index_view(found: Found, snapshot: Snapshot) -> dict[str, Any]:
    """Return what was searched, as `IndexRef` has it."""
    return {
        "collection": found.collection,
        "version": found.version,
        "published_at": snapshot.index.manifest.published_at,
        "stale": found.stale,
    }


def search_view(found: Found, snapshot: Snapshot, request_id: str) -> dict[str, Any]:
    """Return the answer to a search."""
    hits = [
        hit_view(one.hit) | {"passage": {"text": one.text, "span": one.span}, "explain": one.explain or None}
        for one in found.passages
    ]
    return {
        "hits": hits,
        "index": index_view(found, snapshot),
        "effort": found.effort,
        "seconds": found.seconds,
        "cached": found.cached,
        "request_id": request_id,
    }


def citation_view(citation: Citation) -> models.CitationModel:
    """Return a citation."""
    return models.CitationModel.model_validate(citation, from_attributes=True)


def sentence_view(sentence: CitedSentence) -> models.SentenceModel:
    """Return a sentence."""
    return models.SentenceModel.model_validate(sentence, from_attributes=True)


def rag_view(finished: Finished, found: Found, snapshot: Snapshot, request_id: str) -> models.RagExtras:
    """Return what an answer rests on."""
    result = finished.result
    return models.RagExtras(
        answer_id=finished.answer_id,
        kind=result.kind,
        degraded=result.degraded,
        citations=[citation_view(one) for one in result.citations],
        sentences=[sentence_view(one) for one in result.sentences],
        index=models.IndexRef(**index_view(found, snapshot)),
        cached=finished.cached,
        request_id=request_id,
    )


def usage_view(result: AnswerResult) -> models.Usage:
    """Return the tokens of an answer."""
    total = result.prompt_tokens + result.completion_tokens
    return models.Usage(
        prompt_tokens=result.prompt_tokens, completion_tokens=result.completion_tokens, total_tokens=total
    )
