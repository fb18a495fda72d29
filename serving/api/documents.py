"""`GET /v1/documents/{doc_id}` and `GET /v1/chunks/{chunk_id}`: what citations point at."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request

from rag_core.tables.document_reading import read_document
from serving.api.dependencies import ALWAYS, CallerNow, RuntimeNow, refusals
from serving.api.models import ChunkAnswer, DocumentModel
from serving.api.views import hit_view
from serving.search_service import not_found

router = APIRouter(prefix="/v1", tags=["documents"])

_ID = r"^[0-9a-f]{32}$"


@router.get("/documents/{doc_id}", response_model=DocumentModel, responses=refusals(404, *ALWAYS))
async def document(
    doc_id: Annotated[str, Path(pattern=_ID)], request: Request, runtime: RuntimeNow, caller: CallerNow
) -> dict[str, Any]:
    """Return a document's text; spans of citations count in it."""
    columns = [*DocumentModel.model_fields, "access_label"]
    with runtime.parts.holder.use() as snapshot:
        labels = snapshot.labels_for(caller)
    row = await asyncio.to_thread(read_document, runtime.store, runtime.config, doc_id, columns)
    if row is None or (labels is not None and row["access_label"] not in labels):
        raise not_found("the document")
    runtime.audit.record("document", caller, request.state.request_id, documents=[doc_id])
    return row


@router.get("/chunks/{chunk_id}", response_model=ChunkAnswer, responses=refusals(404, *ALWAYS))
async def chunk(
    chunk_id: Annotated[str, Path(pattern=_ID)],
    request: Request,
    runtime: RuntimeNow,
    caller: CallerNow,
    neighbours: Annotated[int, Query(ge=0, le=10, description="Chunks before and after it.")] = 1,
) -> dict[str, Any]:
    """Return a chunk with those around it."""
    parts = runtime.parts
    with parts.holder.use() as snapshot:
        labels = snapshot.labels_for(caller)
        hits = await parts.engine.chunk(snapshot, chunk_id, labels=labels, neighbours=neighbours)
    at = next((number for number, hit in enumerate(hits or ()) if hit.chunk_id == chunk_id), None)
    if hits is None or at is None:
        raise not_found("the chunk")
    runtime.audit.record("chunk", caller, request.state.request_id, documents=[hits[at].doc_id])
    views = [hit_view(hit) for hit in hits]
    return {"chunk": views[at], "before": views[:at], "after": views[at + 1 :]}
