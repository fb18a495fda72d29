"""`GET /v1/answers/{answer_id}` and `POST /v1/feedback`: what was answered, from what, and what people say of it."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request

from serving.api.dependencies import ALWAYS, CallerNow, RuntimeNow, refusals
from serving.api.models import FeedbackAnswer, FeedbackRequest, Replay
from serving.search_service import not_found

router = APIRouter(prefix="/v1", tags=["answers"])


@router.get("/answers/{answer_id}", response_model=Replay, responses=refusals(404, *ALWAYS))
async def answer(
    answer_id: Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")],
    request: Request,
    runtime: RuntimeNow,
    caller: CallerNow,
) -> dict[str, Any]:
    """Return an answer again and what it was made from, to its asker, if they may still see all of that."""
    kept = await runtime.records.answer(answer_id, caller)
    if kept is None:
        raise not_found("the answer")
    parts = runtime.parts
    with parts.holder.use() as snapshot:
        labels = snapshot.labels_for(caller)
    cited = {citation["doc_id"] for citation in kept["citations"]}
    if labels is not None and not cited <= await parts.search.visible(sorted(cited), labels):
        raise not_found("the answer")
    runtime.audit.record("replay", caller, request.state.request_id, answer=answer_id, documents=sorted(cited))
    return kept


@router.post("/feedback", status_code=201, response_model=FeedbackAnswer, responses=refusals(400, 404, 409, *ALWAYS))
async def feedback(body: FeedbackRequest, request: Request, runtime: RuntimeNow, caller: CallerNow) -> FeedbackAnswer:
    """Keep a thumb for an answer of the caller."""
    feedback_id = await runtime.records.feedback(
        body.answer_id, caller, rating=body.rating, comment=body.comment, chunk_ids=body.chunk_ids
    )
    if feedback_id is None:
        raise not_found("the answer")
    runtime.audit.record("feedback", caller, request.state.request_id, answer=body.answer_id, rating=body.rating)
    return FeedbackAnswer(feedback_id=feedback_id)
