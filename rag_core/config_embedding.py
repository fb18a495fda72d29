"""Types of `rag.yaml` that say how chunks become vectors, and where the workers run."""

from typing import Literal

from pydantic import Field, SecretStr, model_validator

from rag_core.config_base import HttpAddress, Section
from rag_core.config_kubernetes import KubernetesConfig


class EmbeddingConfig(Section):
    """The embedding model and how it is run."""

    backend: Literal["sentence-transformers", "openai"] = Field(
        default="sentence-transformers", description="Local model, or any OpenAI-compatible endpoint."
    )
    model: str = Field(
        default="all-MiniLM-L6-v2",
        description="`all-MiniLM-L6-v2` needs no network; else a model folder, a hub name or the endpoint's name.",
    )
    revision: str | None = Field(default=None, description="Model-hub revision.")
    allow_download: bool = Field(default=False, description="Ask the model hub for models that are not on disk.")
    dim: int | None = Field(default=None, gt=0, description="Vector dimension; required for the openai backend.")
    max_tokens: int | None = Field(
        default=None, gt=0, description="Tokens the model reads, special tokens included; default: the model's own."
    )
    tokenizer: str | None = Field(
        default=None, description="Path of a tokenizer.json; for endpoints whose tokenizer is not the default model's."
    )
    query_prefix: str | None = Field(default=None, description="Before each query; default: the model's own.")
    passage_prefix: str | None = Field(default=None, description="Before each passage; default: the model's own.")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="Where the model runs.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", description="`auto` takes half precision where a measured cosine against fp32 allows it."
    )
    min_cosine: float = Field(
        default=0.999, gt=0, le=1, description="Mean cosine to fp32 that half precision must reach to be chosen."
    )
    batch_tokens: int = Field(default=16_384, ge=256, description="Padded tokens in one batch.")
    checkpoint_tokens: int = Field(default=500_000, ge=256, description="Tokens embedded between two checkpoints.")
    base_url: HttpAddress | None = Field(default=None, description="openai backend: address of the endpoint.")
    api_key: SecretStr | None = Field(
        default=None, description="openai backend: secret, only from RAG_EMBEDDING__API_KEY."
    )
    request_batch: int = Field(default=128, ge=1, description="openai backend: texts in one request.")
    concurrency: int = Field(default=4, ge=1, description="openai backend: requests at once.")
    timeout_s: float = Field(default=60.0, gt=0, description="openai backend: time limit of one request.")
    max_retries: int = Field(default=6, ge=0, description="openai backend: tries after a refused request.")
    workers: int | None = Field(
        default=None,
        ge=1,
        description="Embedding jobs at once, or pods; default: one for each GPU of this machine, and one without.",
    )
    processes: int | None = Field(
        default=None,
        ge=1,
        description="Processes of one job, each with a share of its texts, and with a GPU where there are any; "
        "default: one for each GPU of a pod, and one elsewhere. On this machine it needs `worker_idle_s: 0`.",
    )
    worker_idle_s: float = Field(
        default=300.0,
        ge=0,
        description="A local worker stays ready, its model loaded, this long after its last job; 0: it ends with it.",
    )
    kubernetes: KubernetesConfig | None = Field(default=None, description="Embedding jobs as pods.")

    @model_validator(mode="after")
    def _endpoint_complete(self) -> "EmbeddingConfig":
        if self.backend == "openai" and (self.base_url is None or self.dim is None):
            raise ValueError("the openai backend needs base_url and dim")
        return self
