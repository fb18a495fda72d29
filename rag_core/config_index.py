"""Types of `rag.yaml` that say where vectors are searched, and by what index."""

from typing import Any, Literal

from pydantic import Field, SecretStr

from rag_core.config_base import HttpAddress, Section


class IndexConfig(Section):
    """The Milvus collection. Without a uri, a Milvus Lite server on loopback is started and stopped by itself."""

    uri: HttpAddress | None = Field(
        default=None, description="http(s)://host:port of a Milvus server; empty: Milvus Lite."
    )
    token: SecretStr | None = Field(default=None, description="Secret, only from RAG_INDEX__TOKEN: user:password.")
    database: str = Field(default="default", description="Milvus database.")
    alias: str = Field(default="rag", description="Name that queries use; points at the published collection.")
    index_type: str = Field(
        default="FLAT",
        description="Dense index. FLAT keeps recall under filters; on Lite choose HNSW beyond some 50,000 chunks.",
    )
    lexical: bool = Field(
        default=True,
        description="Whether words are indexed beside vectors (BM25), which needs sparse vectors: Milvus Lite, or "
        "Milvus 2.4. Without, searches are by meaning only.",
    )
    metric: Literal["COSINE", "IP"] = Field(default="COSINE", description="Vectors have unit length: both rank alike.")
    build_params: dict[str, Any] = Field(
        default_factory=dict, description="Such as {M: 16, efConstruction: 200}. Empty: built-in ones."
    )
    search_params: dict[str, Any] = Field(
        default_factory=dict,
        description="Such as {ef: 128}. Tried among others: each verdict picks the cheapest that meets the floors.",
    )
    write_batch: int = Field(default=1_000, ge=1, description="Rows in one upsert.")
    timeout_s: float = Field(default=60.0, gt=0, description="Time limit of one request.")
    lite_idle_s: float = Field(
        default=120.0, gt=0, description="Milvus Lite stops this long after its last client went away."
    )
