"""Types of `rag.yaml` that say where vectors are searched, and by what index."""

from typing import Any, Literal, Self

from pydantic import Field, SecretStr, model_validator

from rag_core.config_base import HttpAddress, Section

VectorType = Literal["FLOAT_VECTOR", "FLOAT16_VECTOR", "BFLOAT16_VECTOR"]


class IndexTlsConfig(Section):
    """What is needed to trust a Milvus server, and for it to trust us. Without: the usual public authorities."""

    ca_file: str | None = Field(default=None, description="PEM file of the authority that signed its certificate.")
    cert_file: str | None = Field(default=None, description="PEM file of our own certificate, if the server asks one.")
    key_file: str | None = Field(default=None, description="PEM file of the key of cert_file.")
    server_name: str | None = Field(
        default=None, description="Name in the server's certificate, where it is not the host of the uri."
    )

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        # pymilvus sends no certificate of its own without the authority's, and says nothing.
        own = (self.cert_file, self.key_file)
        if any(own) and not all((*own, self.ca_file)):
            raise ValueError("cert_file and key_file belong together, and need ca_file")
        return self


class BulkImportConfig(Section):
    """Import of large first loads. The server must read what is written there."""

    to: str = Field(
        description="s3://bucket/prefix in the bucket of the Milvus server, reached with store.s3; or a folder, where "
        "the server keeps its data in folders of this machine."
    )
    min_rows: int = Field(default=20_000, ge=1, description="Rows of a partition from which on it is imported.")


class IndexConfig(Section):
    """The Milvus collection. Without a uri, a Milvus Lite server on loopback is started and stopped by itself."""

    uri: HttpAddress | None = Field(
        default=None, description="http(s)://host:port of a Milvus server; empty: Milvus Lite."
    )
    token: SecretStr | None = Field(default=None, description="Secret, only from RAG_INDEX__TOKEN: user:password.")
    tls: IndexTlsConfig | None = Field(default=None, description="Certificates, for a uri that begins with https://.")
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
    vector_type: VectorType = Field(
        default="FLOAT_VECTOR",
        description="How Milvus keeps vectors. Of 16 bits they take half the memory; needs Milvus 2.4, not Lite.",
    )
    shards: int | None = Field(
        default=None, ge=1, description="Channels that rows are written through; empty: the server's default, one."
    )
    replicas: int | None = Field(
        default=None,
        ge=1,
        description="Copies of the collection in memory, each on query nodes of its own; empty: the server's default.",
    )
    resource_groups: tuple[str, ...] = Field(
        default=(), description="Resource groups whose query nodes hold the copies; empty: the server's default group."
    )
    mmap: bool = Field(
        default=False,
        description="Whether query nodes map vectors from their disk instead of holding them in memory; needs Milvus "
        "2.4, not Lite.",
    )
    bulk_import: BulkImportConfig | None = Field(
        default=None, description="How partitions that Milvus holds nothing of are loaded; empty: by upserts."
    )
    write_batch: int = Field(default=1_000, ge=1, description="Rows in one upsert.")
    timeout_s: float = Field(default=60.0, gt=0, description="Time limit of one request.")
    lite_idle_s: float = Field(
        default=120.0, gt=0, description="Milvus Lite stops this long after its last client went away."
    )

    @model_validator(mode="after")
    def _imports_float32(self) -> Self:
        if self.bulk_import is not None and self.vector_type != "FLOAT_VECTOR":
            raise ValueError(f"bulk_import writes FLOAT_VECTOR only; vector_type is {self.vector_type}: remove one")
        return self

    @model_validator(mode="after")
    def _tls_is_used(self) -> Self:
        if self.tls is not None and not (self.uri or "").startswith("https://"):
            raise ValueError(f"tls is set, but uri is {self.uri or 'empty'}; write https://host:port, or remove tls")
        return self
