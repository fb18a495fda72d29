"""`/healthz`, `/readyz`, `/metrics` and `GET /v1/index`: how the service and its index are."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from serving.api.dependencies import ALWAYS, CallerNow, RuntimeNow, caller_of, refusals
from serving.api.models import IndexModel, Readiness
from serving.caller import Caller

router = APIRouter()


@router.get("/healthz", tags=["health"])
async def healthz() -> dict[str, str]:
    """Answer as long as the process lives."""
    return {"status": "ok"}


@router.get("/readyz", tags=["health"], response_model=Readiness, responses={503: {"model": Readiness}})
async def readyz(runtime: RuntimeNow, response: Response) -> Readiness:
    """Say whether questions are answered; 503 if not."""
    ready, collection = runtime.is_ready, None
    if ready:
        with runtime.parts.holder.use() as snapshot:
            collection = snapshot.index.collection
    response.status_code = 200 if ready else 503
    return Readiness(ready=ready, problem=runtime.problem, collection=collection)


async def _may_scrape(request: Request, runtime: RuntimeNow) -> Caller | None:
    return None if runtime.config.serving.access.metrics_public else await caller_of(request, runtime)


@router.get("/metrics", tags=["health"], response_class=Response, responses={
    200: {"content": {"text/plain": {}}, "description": "Prometheus' text format."}, **refusals(401, 503),
})  # fmt: skip
async def metrics(runtime: RuntimeNow, _caller: Annotated[Caller | None, Depends(_may_scrape)]) -> Response:
    """Return the metrics for Prometheus."""
    return Response(generate_latest(runtime.metrics.registry), media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/index", tags=["search"], response_model=IndexModel, responses=refusals(*ALWAYS))
async def index(runtime: RuntimeNow, caller: CallerNow) -> dict[str, Any]:
    """Say what is served, and how fresh the sources are of which the caller may see documents."""
    parts = runtime.parts
    with parts.holder.use() as snapshot:
        labels, manifest = snapshot.labels_for(caller), snapshot.index.manifest
        names = [source.name for source in runtime.config.sources]
        seen = set(names) if labels is None else snapshot.access.sources_of(labels)
        standings = await runtime.freshness.standings()
        return {
            "collection": manifest.collection,
            "version": snapshot.version_for(None),
            "published_at": manifest.published_at,
            "age_s": (datetime.now(UTC) - manifest.published_at).total_seconds(),
            "model": manifest.model,
            "documents": manifest.documents,
            "chunks": manifest.chunks,
            "recall_at_10": manifest.ann_recall_at_10,
            "llm": runtime.config.serving.llm.base_url is not None,
            "problem": "the last look at the index failed" if runtime.problem else None,
            "sources": [
                {"name": name, **standings.get(name, {"state": "unknown", "oldest_pending_age_s": None})}
                for name in names
                if name in seen
            ],
        }
