"""Types of `rag.yaml` that say how the HTTP service searches, answers, admits and degrades."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, model_validator

from rag_core.config_base import MIB, HttpAddress, Section

Policy = Literal["mark", "drop"]


class OidcConfig(Section):
    """Bearer tokens of an OpenID Connect provider (JWT). Without an issuer: none are accepted."""

    issuer: HttpAddress | None = Field(default=None, description="Expected `iss`; tokens of any other are refused.")
    audience: str | None = Field(default=None, description="Expected `aud`; required with an issuer.")
    jwks_url: HttpAddress | None = Field(
        default=None, description="Address of the signing keys; default: as the issuer's discovery document says."
    )
    algorithms: tuple[
        Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"], ...
    ] = Field(default=("RS256", "ES256"), description="Signatures that are accepted. None with a shared secret.")
    user_claim: str = Field(default="sub", description="Claim that names the caller.")
    user_prefix: str = Field(default="user:", description="Put before it to make the caller's own principal.")
    groups_claim: str = Field(default="groups", description="Claim that lists the caller's groups.")
    group_prefix: str = Field(default="", description="Put before each group to make a principal.")
    leeway_s: float = Field(default=30.0, ge=0, description="Difference of clocks that is forgiven.")
    timeout_s: float = Field(default=5.0, gt=0, description="Time limit of a request for the keys.")

    @model_validator(mode="after")
    def _complete(self) -> "OidcConfig":
        if self.issuer and not self.audience:
            raise ValueError("an issuer needs an audience: a token for another service must not open this one")
        return self


class AccessConfig(Section):
    """Who may ask. Without keys and without an issuer the service listens on loopback only, and shows everything."""

    keys_file: Path | None = Field(
        default=None,
        description="YAML list of API keys, hashed: see `rag keys new`. Read again when it changes. A relative path is "
        "relative to the file.",
    )
    keys: SecretStr | None = Field(
        default=None, description="The same list as text; secret, only from RAG_SERVING__ACCESS__KEYS."
    )
    oidc: OidcConfig = Field(default_factory=OidcConfig, description="Tokens of an identity provider.")
    metrics_public: bool = Field(default=False, description="Whether /metrics answers without a key.")


class LimitsConfig(Section):
    """What one caller, and all together, may ask."""

    requests_per_minute: int = Field(default=600, ge=1, description="Requests of one caller in any 60 seconds.")
    concurrent: int = Field(default=32, ge=1, description="Requests of one caller at once.")
    in_flight: int = Field(default=64, ge=1, description="Requests of all callers that are worked on at once.")
    waiting: int = Field(
        default=128, ge=0, description="Requests that wait for their turn; further ones are told to come back."
    )
    wait_s: float = Field(default=2.0, gt=0, description="Longest wait for a turn; above it 503 with Retry-After.")
    body_bytes: int = Field(default=MIB, ge=1024, description="Largest request body.")
    question_chars: int = Field(default=4_000, ge=16, description="Longest question.")
    top_k: int = Field(default=100, ge=1, le=1000, description="Most hits of one search.")


class CacheConfig(Section):
    """Results and answers that are kept. They are keyed by the version of what they were made from."""

    enabled: bool = Field(default=True, description="Whether anything is kept.")
    redis_url: SecretStr | None = Field(
        default=None,
        description="Secret, only from RAG_SERVING__CACHE__REDIS_URL: redis://user:password@host:6379/0. Empty: kept "
        "in the process itself.",
    )
    redis_timeout_s: float = Field(default=0.25, gt=0, description="Time limit of a request to Redis.")
    memory_mib: int = Field(default=64, ge=1, description="Kept in the process itself: at most so much.")
    results_ttl_s: float = Field(default=600.0, gt=0, description="How long results are kept.")
    answers_ttl_s: float = Field(default=3600.0, gt=0, description="How long answers are kept.")
    stale_ttl_s: float = Field(
        default=3600.0,
        ge=0,
        description="How long they may be given out, marked stale, while Milvus is gone; or 0.",
    )
    look_s: float = Field(
        default=1.0,
        gt=0,
        description="Seconds between two looks at what is published and what has changed: so long after a change is "
        "verified, an older result may still be given out.",
    )
    warm_queries: int = Field(default=32, ge=0, description="Most frequent queries that are asked of an index first.")


class RetrievalConfig(Section):
    """How the service searches."""

    timeout_s: float = Field(default=5.0, gt=0, description="Time limit of one request to Milvus.")
    breaker_failures: int = Field(
        default=5, ge=1, description="Failures in a row after which Milvus is left alone for a while."
    )
    breaker_reset_s: float = Field(default=5.0, gt=0, description="How long; then one request tries again.")
    batch: int = Field(default=32, ge=1, description="Most questions embedded, or searched for, at once.")
    query_cache: int = Field(default=10_000, ge=0, description="Vectors of questions that are kept.")
    passages: int = Field(default=8, ge=1, le=50, description="Passages an answer is made from.")
    passage_tokens: int = Field(default=2_400, ge=128, description="Tokens that these may have together.")
    neighbours: int = Field(default=1, ge=0, le=5, description="Chunks before and after that are read with each.")
    duplicate_similarity: float = Field(
        default=0.9, gt=0, le=1, description="Jaccard similarity of words from which two passages count as one."
    )
    rerank_model: str | None = Field(
        default=None, description="Cross-encoder: a model folder, or a hub name. Empty: no reranking."
    )
    rerank_depth: int = Field(default=32, ge=2, description="Hits that are reranked.")


class LlmConfig(Section):
    """The language model that writes answers. Without an address: answers are quoted sentences."""

    base_url: HttpAddress | None = Field(default=None, description="Address of any OpenAI-compatible endpoint.")
    model: str = Field(default="gpt-4o-mini", description="Its name there.")
    api_key: SecretStr | None = Field(default=None, description="Secret, only from RAG_SERVING__LLM__API_KEY.")
    timeout_s: float = Field(default=30.0, gt=0, description="Time limit of one answer.")
    first_token_s: float = Field(default=10.0, gt=0, description="Time limit until its first word.")
    max_retries: int = Field(default=1, ge=0, description="Further tries before the first word.")
    max_tokens: int = Field(default=700, ge=16, description="Longest answer.")
    temperature: float = Field(default=0.0, ge=0, le=2, description="Sampling temperature.")
    tokens_per_day: int | None = Field(
        default=None, ge=1, description="Budget of this process, in and out; above it answers are quoted sentences."
    )
    unsupported: Policy = Field(
        default="mark", description="What becomes of a sentence that its cited passages do not support."
    )
    min_support: float = Field(
        default=0.6, ge=0, le=1, description="Support (0 to 1) from which a sentence counts as supported."
    )


class ObservabilityConfig(Section):
    """What the service says of itself."""

    otlp_endpoint: HttpAddress | None = Field(
        default=None, description="Traces by OTLP over HTTP, such as http://127.0.0.1:4318. Empty: none."
    )
    trace_share: float = Field(default=1.0, ge=0, le=1, description="Share of requests that are traced.")
    log_texts: bool = Field(default=False, description="Whether logs may hold questions. Documents they never hold.")


class ServingConfig(Section):
    """The HTTP service."""

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8080, ge=1, le=65_535, description="Port to listen on.")
    cors_origins: tuple[str, ...] = Field(default=(), description="Origins whose pages may call. Empty: none.")
    drain_s: float = Field(default=20.0, ge=0, description="How long requests may take to end when it is stopped.")
    keep_answers: bool = Field(
        default=True, description="Whether answers, feedback and counts of questions are kept, in the store's tables."
    )
    access: AccessConfig = Field(default_factory=AccessConfig, description="Who may ask.")
    limits: LimitsConfig = Field(default_factory=LimitsConfig, description="How much may be asked.")
    cache: CacheConfig = Field(default_factory=CacheConfig, description="What is kept.")
    retrieval: RetrievalConfig = Field(default_factory=RetrievalConfig, description="How it searches.")
    llm: LlmConfig = Field(default_factory=LlmConfig, description="Who writes answers.")
    observability: ObservabilityConfig = Field(default_factory=ObservabilityConfig, description="What it tells.")
