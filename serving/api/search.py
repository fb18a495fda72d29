"""`POST /v1/search`."""

from typing import Any

from fastapi import APIRouter, Request

from serving.api import views
from serving.api.dependencies import ALWAYS, CallerNow, RuntimeNow, refusals
from serving.api.models import SearchAnswer, SearchRequest
from serving.errors import ApiError
from serving.retrieval.query import Query

router = APIRouter(prefix="/v1", tags=["search"])


@router.post("/search", response_model=SearchAnswer, responses=refusals(400, *ALWAYS))
async def search(body: SearchRequest, request: Request, runtime: RuntimeNow, caller: CallerNow) -> dict[str, Any]:
    """Find the passages that answer a question best, among the documents that the caller may see."""
    limits, request_id = runtime.config.serving.limits, request.state.request_id
    check_length(body.question, limits.question_chars, "question")
    if body.top_k > limits.top_k:
        raise ApiError(400, "top_k_too_large", f"top_k is {body.top_k}; at most {limits.top_k} here", param="top_k")
    query = Query(
        text=body.question,
        mode=body.mode,
        top_k=body.top_k,
        filters=views.filters_of(body.filters),
        rerank=body.rerank,
        neighbours=body.neighbours,
        explain=body.explain,
    )
    found, snapshot = await runtime.parts.search.search_again(caller, query)
    if not found.stale:
        runtime.records.asked(body.question, body.mode)
    runtime.audit.record(
        "search", caller, request_id, documents=found.doc_ids, collection=found.collection, version=found.version
    )
    return views.search_view(found, snapshot, request_id)


def check_length(text: str, most: int, param: str) -> None:
    """Refuse a text that is longer than `serving.limits.question_chars`."""
    if len(text) > most:
        raise ApiError(400, "question_too_long", f"{len(text)} characters; at most {most} here", param=param)
