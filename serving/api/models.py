"""Requests and answers of the API, as OpenAPI shows them."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from rag_core.retrieval.ranking import Mode
from serving.retrieval.query import normalised

_EXAMPLE = "How quickly must I report a security incident?"
_VISIBLE = r"[^\s\x00-\x1f\x7f]"  # somewhere in the text


def _asked(text: str) -> str:
    question = normalised(text)
    if not question:
        raise ValueError("a question of at least one character that is not white space")
    return question


Question = Annotated[str, AfterValidator(_asked)]
Id = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Names = Annotated[list[Name], Field(max_length=100)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Filters(_Request):
    """What documents must satisfy; all of it. What is left out does not restrict, an empty list admits nothing."""

    sources: Names | None = Field(default=None, description="Names of sources.", examples=[["handbook"]])
    mimes: Names | None = Field(default=None, description="Media types.")
    languages: Names | None = Field(default=None, description="ISO 639-1 codes.")
    modified_after: AwareDatetime | None = Field(default=None, description="Inclusive; unknown times do not pass.")
    modified_before: AwareDatetime | None = Field(default=None, description="Exclusive; unknown times do not pass.")
    doc_ids: Annotated[list[Id], Field(max_length=100)] | None = Field(default=None, description="Documents.")


class SearchRequest(_Request):
    """A search."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"question": _EXAMPLE, "top_k": 5}]})

    question: Question = Field(pattern=_VISIBLE, description="What is looked for.")
    mode: Mode = Field(default="hybrid", description="By meaning, by words, or both fused by reciprocal rank.")
    top_k: int = Field(default=10, ge=1, le=1000, description="Most hits; `serving.limits.top_k` bounds it further.")
    filters: Filters = Field(default_factory=Filters, description="Restrictions.")
    rerank: bool = Field(default=False, description="Rerank by the configured cross-encoder; without one: no effect.")
    neighbours: int = Field(default=0, ge=0, le=5, description="Chunks before and after that passages are joined with.")
    explain: bool = Field(default=False, description="Say how each hit got its place.")


class PassageText(BaseModel):
    """A hit with what stands around it."""

    text: str
    span: tuple[int, int] = Field(description="In characters (code points) of the document's text, end exclusive.")


class HitModel(BaseModel):
    """A chunk."""

    chunk_id: str
    doc_id: str
    external_id: str | None = Field(description="The source's own id of the document.")
    uri: str
    title: str | None
    source: str
    mime: str
    language: str | None
    heading_path: list[str] = Field(description="Outermost first.")
    page: int | None = Field(description="From 1.")
    span: tuple[int, int] = Field(description="In characters (code points) of the document's text, end exclusive.")
    ordinal: int = Field(description="Place in the document, from 0.")
    score: float = Field(description="Higher is better; comparable within one answer only.")
    text: str
    modified_at: datetime | None


class FoundHit(HitModel):
    """A chunk that was found."""

    passage: PassageText
    explain: dict[str, Any] | None = Field(default=None, description="Ranks, scores and weights; only if asked for.")


class IndexRef(BaseModel):
    """What was searched."""

    collection: str
    version: str = Field(description="Differs as soon as anything changed that the question could find.")
    published_at: datetime
    stale: bool = Field(description="Whether this is an older result, given out because the index does not answer.")


class SearchAnswer(BaseModel):
    """What was found."""

    hits: list[FoundHit]
    index: IndexRef
    effort: dict[str, Any] = Field(description="Weights and search parameters that were used.")
    seconds: dict[str, float] = Field(description="Time of each stage.")
    cached: bool
    request_id: str


class TextPart(BaseModel):
    """A part of a message."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """A message of a conversation."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(max_length=64)] = Field(description="Text, or parts of type text.")

    @property
    def text(self) -> str:
        """The text of all parts."""
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)


class ChatRequest(BaseModel):
    """An OpenAI chat request; what is not named here is ignored."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={"examples": [{"model": "rag", "messages": [{"role": "user", "content": _EXAMPLE}]}]},
    )

    model: str = Field(default="rag", max_length=255, description="One of /v1/models; `rag`: the best there is.")
    messages: Annotated[list[Message], Field(min_length=1, max_length=256)] = Field(
        description="The last one of the user is the question; those before it are the conversation."
    )
    stream: bool = Field(default=False, description="Sentence by sentence, as server-sent events.")
    temperature: float | None = Field(default=None, ge=0, le=2, description="Default: as configured.")
    max_tokens: int | None = Field(default=None, ge=1, le=32_768, description="Default, and bound: as configured.")
    max_completion_tokens: int | None = Field(default=None, ge=1, le=32_768, description="The same, by its newer name.")
    n: Literal[1] | None = Field(default=None, description="One answer.")
    filters: Filters = Field(default_factory=Filters, description="Restrictions; not a part of OpenAI's API.")
    mode: Mode = Field(default="hybrid", description="How passages are searched; not a part of OpenAI's API.")


class CitationModel(BaseModel):
    """A cited passage."""

    number: int = Field(description="As in the text's markers, such as [1].")
    chunk_id: str
    doc_id: str
    uri: str
    title: str | None
    source: str
    page: int | None
    heading_path: list[str]
    span: tuple[int, int] = Field(description="In characters (code points) of the document's text, end exclusive.")
    quote: str = Field(description="The document's text at the span.")
    text_hash: str = Field(description="Digest of the chunk's text when it was cited.")


class SentenceModel(BaseModel):
    """A sentence of an answer."""

    text: str
    citations: list[int]
    supported: bool = Field(description="Whether the cited passages say it.")
    support: float = Field(description="0 to 1.")


class RagExtras(BaseModel):
    """What an answer rests on; not a part of OpenAI's API."""

    answer_id: str
    kind: Literal["generated", "extractive", "not_found"]
    degraded: str = Field(description="Why no language model wrote it although one is configured; else empty.")
    citations: list[CitationModel]
    sentences: list[SentenceModel]
    index: IndexRef
    cached: bool
    request_id: str


class ChatMessage(BaseModel):
    """The answer's message."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(BaseModel):
    """The one answer."""

    index: int = 0
    message: ChatMessage
    finish_reason: Literal["stop"] = "stop"
    logprobs: None = None


class Usage(BaseModel):
    """Tokens of the language model; 0 where none was asked."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(BaseModel):
    """OpenAI's answer, with what it rests on."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    rag: RagExtras


class ModelCard(BaseModel):
    """A model that answers."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "rag-assets"


class ModelList(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class DocumentModel(BaseModel):
    """A document as it was parsed."""

    doc_id: str
    source: str
    uri: str
    title: str | None
    mime: str
    language: str | None
    modified_at: datetime | None
    text: str = Field(description="Markdown.")
    page_starts: list[int] | None = Field(description="Where page 1, 2, ... starts; null without pages.")


class ChunkAnswer(BaseModel):
    """A chunk and those around it, in the order of the document."""

    chunk: HitModel
    before: list[HitModel]
    after: list[HitModel]


class FeedbackRequest(_Request):
    """A thumb."""

    answer_id: Id
    rating: Literal["up", "down"]
    comment: str = Field(default="", max_length=2_000)
    chunk_ids: Annotated[list[Id], Field(max_length=50)] = Field(
        default_factory=list, description="Cited chunks it is about; empty: the answer as a whole."
    )


class FeedbackAnswer(BaseModel):
    """It is kept."""

    feedback_id: str


class ReplayedCitation(CitationModel):
    """A citation, and what became of it."""

    run_id: str | None = Field(description="Dagster run that wrote the chunk into the index; null if unknown.")
    now: Literal["current", "changed", "gone"] = Field(description="What became of the chunk since.")


class Replay(BaseModel):
    """An answer again, and what it was made from."""

    answer_id: str
    asked_at: datetime
    question: str
    text: str
    kind: Literal["generated", "extractive", "not_found"]
    degraded: str
    model: str = Field(description="Language model; empty if none wrote it.")
    collection: str
    index_version: str
    embedding_model: str = Field(description="Fingerprint of the embedding model.")
    sentences: list[SentenceModel]
    citations: list[ReplayedCitation]
    seconds: float


class SourceState(BaseModel):
    """How fresh a source is."""

    name: str
    state: Literal["ok", "slow_burn", "fast_burn", "exhausted", "hard_limit", "unknown"]
    oldest_pending_age_s: float | None = Field(description="Age of the oldest change not searchable yet; null: none.")


class IndexModel(BaseModel):
    """What is served."""

    collection: str
    version: str
    published_at: datetime
    age_s: float
    model: str = Field(description="Embedding model.")
    documents: int
    chunks: int
    recall_at_10: float | None = Field(description="ANN recall@10 as last measured.")
    llm: bool = Field(description="Whether a language model writes answers.")
    problem: str | None = Field(description="Why the last look at the index failed; null: it did not.")
    sources: list[SourceState] = Field(description="Those of which the caller may see documents.")


class Readiness(BaseModel):
    """Whether questions are answered."""

    ready: bool
    problem: str | None
    collection: str | None


class ErrorBody(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorAnswer(BaseModel):
    """An answer that is not a success."""

    error: ErrorBody
