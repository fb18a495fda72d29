"""Types of `rag.yaml`. Loading, layering and errors are in `rag_core.config_loader`; nothing here reads a file."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from rag_core.config_backup import BackupConfig
from rag_core.config_base import MIB, HttpAddress, Section
from rag_core.config_embedding import EmbeddingConfig
from rag_core.config_freshness import (
    AlertsConfig,
    AutomationConfig,
    FreshnessConfig,
    Objective,
    RetentionConfig,
    RunConfig,
    SqsEvents,
)
from rag_core.config_index import IndexConfig
from rag_core.config_monitoring import MonitoringConfig
from rag_core.config_serving import ServingConfig
from rag_core.config_spark import SparkConfig
from rag_core.config_store import StoreConfig

__all__ = [
    "AlertsConfig",
    "ArchiveLimits",
    "AutomationConfig",
    "BackupConfig",
    "ChunkingConfig",
    "EmbeddingConfig",
    "EvaluationConfig",
    "FilesSource",
    "FreshnessConfig",
    "IndexConfig",
    "JsonlSource",
    "LabelledQueries",
    "MonitoringConfig",
    "Objective",
    "ParsingConfig",
    "PublicationConfig",
    "QualityConfig",
    "RagConfig",
    "RetentionConfig",
    "RunConfig",
    "S3Source",
    "ServingConfig",
    "SlackSource",
    "SourceConfig",
    "SparkConfig",
    "SqsEvents",
    "StoreConfig",
]


class ChunkingConfig(Section):
    """How a document's text is cut into chunks. Sizes are in tokens of the embedding model's own tokenizer."""

    strategy: Literal["markdown", "recursive", "fixed", "semantic"] = Field(
        default="markdown",
        description=(
            "`markdown` follows headings and keeps tables and code blocks whole where they fit; `recursive` splits at "
            "paragraphs, lines, sentences, words; `fixed` cuts every max_tokens; `semantic` cuts where the similarity "
            "of adjacent sentences drops."
        ),
    )
    max_tokens: int = Field(
        default=254,
        ge=16,
        description="Largest chunk, special tokens excluded; never above what the model reads.",
    )
    overlap_tokens: int = Field(default=0, ge=0, description="Tokens repeated from the end of the chunk before.")
    semantic_percentile: float = Field(
        default=90.0,
        gt=0,
        lt=100,
        description="`semantic` only: split where the distance of adjacent sentences is above this percentile.",
    )

    @model_validator(mode="after")
    def _overlap_below_size(self) -> "ChunkingConfig":
        if self.overlap_tokens * 2 > self.max_tokens:
            raise ValueError("overlap_tokens must be at most half of max_tokens")
        return self


_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


class _SourceBase(Section):
    name: str = Field(description="Lower case letters, digits and single underscores; begins every partition key.")
    include: tuple[str, ...] = Field(
        default=("**/*",), description="Globs of object keys to read, of file keys for `jsonl`; `**` crosses folders."
    )
    exclude: tuple[str, ...] = Field(
        default=("**/.*", "**/.*/**", "**/~$*"), description="Globs of object keys to leave out; wins over include."
    )
    max_bytes: int = Field(default=64 * MIB, gt=0, description="Larger objects are rejected as too large.")
    principals: tuple[str, ...] = Field(
        default=(), description="Who may read documents that name nobody. Empty: `source:NAME`, never everybody."
    )
    buckets: int | None = Field(default=None, ge=1, le=1000, description="Overrides `buckets` for this source.")
    chunking: ChunkingConfig | None = Field(
        default=None, description="Replaces `chunking` for this source, keys left out included."
    )
    objective: Objective | None = Field(
        default=None, description="Replaces `freshness.objective` for this source, keys left out included."
    )

    @field_validator("name")
    @classmethod
    def _valid_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value) or "__" in value or value.endswith("_"):
            raise ValueError("a lower case name of letters, digits and single underscores, such as `handbook`")
        return value


class FilesSource(_SourceBase):
    """A local folder of files."""

    kind: Literal["files"]
    root: Path = Field(description="The folder. A relative path is relative to the file.")


class S3Source(_SourceBase):
    """The objects below a prefix of an S3 bucket. Credentials come from the environment, as boto3 finds them."""

    kind: Literal["s3"]
    bucket: str = Field(description="Bucket name.")
    prefix: str = Field(default="", description="Folder of the bucket; object keys are relative to it.")
    endpoint_url: HttpAddress | None = Field(default=None, description="Address of an S3-compatible server; else AWS.")
    region: str | None = Field(default=None, description="Region of the bucket; else as boto3 finds it.")
    events: SqsEvents | None = Field(default=None, description="Event notifications; without, the prefix is listed.")


class SlackSource(_SourceBase):
    """A Slack workspace export; one document per channel and day."""

    kind: Literal["slack"]
    root: Path = Field(description="The export: a folder or a ZIP file. A relative path is relative to the file.")


class JsonlSource(_SourceBase):
    """JSON Lines files; one document per line."""

    kind: Literal["jsonl"]
    root: Path = Field(description="A .jsonl file or a folder of them. A relative path is relative to the file.")
    id_field: str = Field(default="_id", description="Field with the record's own id, kept as external_id.")
    text_field: str = Field(default="text", description="Field with the text.")
    title_field: str = Field(default="title", description="Field with the title; may be absent.")
    modified_at_field: str | None = Field(default=None, description="Field with an ISO 8601 time; may be absent.")
    principals_field: str | None = Field(default=None, description="Field with a list of principals; may be absent.")


SourceConfig = Annotated[FilesSource | S3Source | SlackSource | JsonlSource, Field(discriminator="kind")]


class ArchiveLimits(Section):
    """Bounds on what is read from one archive."""

    max_entries: int = Field(default=1_000, gt=0, description="Entries read from an archive.")
    max_total_bytes: int = Field(default=256 * MIB, gt=0, description="Unpacked bytes read from an archive.")
    max_depth: int = Field(default=2, ge=1, description="Archives inside archives.")


class ParsingConfig(Section):
    """Limits of the process that parses a document."""

    timeout_s: float = Field(default=60.0, gt=0, description="Longer documents are rejected as timed out.")
    memory_mib: int = Field(default=2048, ge=256, description="Address space the parser may use beyond its start.")
    archive: ArchiveLimits = Field(default_factory=ArchiveLimits, description="Bounds on archives.")


class LabelledQueries(Section):
    """Questions with judged documents of one source, in BEIR's layout."""

    source: str = Field(description="The source that the judgements are about.")
    queries: Path = Field(description="JSONL with _id and text. A relative path is relative to the file.")
    qrels: Path = Field(description="TSV with query-id, corpus-id, score. A relative path is relative to the file.")


class EvaluationConfig(Section):
    """What is measured before an index is published, and what it must reach."""

    labelled: tuple[LabelledQueries, ...] = Field(
        default=(), description="Labelled queries, one entry a source. Sources without any get known-item queries."
    )
    known_items: int = Field(
        default=200,
        ge=0,
        description="Known-item queries to generate: a sentence of a document asks for that document. 0: none.",
    )
    samples: int = Field(
        default=200, ge=10, description="Stored vectors, and as many questions, searched for to measure ANN recall."
    )
    min_ann_recall: float = Field(
        default=0.95, gt=0, le=1, description="Floor of ANN recall@10: results shared with exact search."
    )
    min_filtered_recall: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="The same floor under filters: 1 % and 10 % of rows, one source, one access label, one partition.",
    )
    min_ndcg_at_10: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Floor of hybrid nDCG@10 on the labelled queries. None: only compared with before.",
    )
    max_regression: float = Field(
        default=0.02,
        ge=0,
        le=1,
        description="Loss of mean nDCG@10 that is accepted, against the served index or its last verdict.",
    )
    significance: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="Level of the paired test. A greater loss is refused only if its p-value is below.",
    )
    min_overlap: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Floor of overlap@10: first ten results that the old and the new index share.",
    )
    max_latency_ratio: float = Field(
        default=3.0,
        gt=0,
        description="Highest ratio of new to old p95 latency of a hybrid search; below 25 ms more it never refuses.",
    )
    reevaluate_share: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Share of changed chunks above which the served index is judged again. 0: after every change.",
    )


class PublicationConfig(Section):
    """Blue/green: how one index takes the place of another."""

    max_reembed_share: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Share of the served chunks that a changed setting may embed anew without `rag run --rebuild`.",
    )
    keep_collections: int = Field(default=1, ge=0, description="Earlier collections that are kept for `rag rollback`.")


class QualityConfig(Section):
    """Declared tests of the tables; the files in `dbt_like_checks/` describe the built-in ones."""

    tests: Path | None = Field(
        default=None,
        description="Folder of YAML files with own tests, or other settings of built-in ones; relative to the file.",
    )
    reports_url: HttpAddress = Field(
        default="http://127.0.0.1:3080",
        description="Address that shows the store's `reports/`; links in the Dagster UI begin with it. The default is "
        "where `rag dev` serves them.",
    )
    max_failing_rows: int = Field(
        default=1_000, ge=1, description="Failing rows of one test and partition that are stored."
    )


class RagConfig(Section):
    """The whole of `rag.yaml`."""

    store: StoreConfig = Field(description="Where everything is kept.")
    sources: tuple[SourceConfig, ...] = Field(min_length=1, description="Where documents come from.")
    buckets: int = Field(default=8, ge=1, le=1000, description="Hash buckets (partitions) of each source.")
    parsing: ParsingConfig = Field(default_factory=ParsingConfig, description="Limits of the parser.")
    chunking: ChunkingConfig = Field(default_factory=ChunkingConfig, description="How text is cut.")
    embedding: EmbeddingConfig = Field(default_factory=EmbeddingConfig, description="How chunks become vectors.")
    index: IndexConfig = Field(default_factory=IndexConfig, description="Where vectors are searched.")
    spark: SparkConfig = Field(default_factory=SparkConfig, description="Engine of large changes.")
    run: RunConfig = Field(default_factory=RunConfig, description="Packing of runs.")
    freshness: FreshnessConfig = Field(default_factory=FreshnessConfig, description="Detection of changes, objectives.")
    automation: AutomationConfig = Field(default_factory=AutomationConfig, description="What starts by itself.")
    alerts: AlertsConfig = Field(default_factory=AlertsConfig, description="Who is told.")
    monitoring: MonitoringConfig = Field(default_factory=MonitoringConfig, description="The pipeline's metrics.")
    backup: BackupConfig = Field(default_factory=BackupConfig, description="Snapshots of the tables.")
    retention: RetentionConfig = Field(default_factory=RetentionConfig, description="How long things are kept.")
    quality: QualityConfig = Field(default_factory=QualityConfig, description="Declared tests.")
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig, description="Recalls before publication.")
    publication: PublicationConfig = Field(default_factory=PublicationConfig, description="Blue/green publication.")
    serving: ServingConfig = Field(default_factory=ServingConfig, description="The HTTP service.")

    @model_validator(mode="after")
    def _unique_sources(self) -> "RagConfig":
        names = [source.name for source in self.sources]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"source names must be unique; repeated: {', '.join(repeated)}")
        return self

    @model_validator(mode="after")
    def _own_queues(self) -> "RagConfig":
        queues = [source.events.queue_url for source in self.sources if source.kind == "s3" and source.events]
        repeated = sorted({queue for queue in queues if queues.count(queue) > 1})
        if repeated:  # each would remove the messages of the other
            raise ValueError(f"each source needs a queue of its own; repeated: {', '.join(map(str, repeated))}")
        return self

    @model_validator(mode="after")
    def _labelled_sources_known(self) -> "RagConfig":
        names = [source.name for source in self.sources]
        labelled = [entry.source for entry in self.evaluation.labelled]
        wrong: list[InitErrorDetails] = []
        for number, name in enumerate(labelled):
            if name not in names:
                expected = f"the name of a source; configured: {', '.join(names)}"
            elif name in labelled[:number]:
                expected = "one entry for each source: ids of queries are kept by source"
            else:
                continue
            error = PydanticCustomError("value_error", "{error}", {"error": expected})
            wrong.append(InitErrorDetails(type=error, loc=("evaluation", "labelled", number, "source"), input=name))
        if wrong:  # raised like this and not as ValueError, so that each names its own key
            raise ValidationError.from_exception_data(type(self).__name__, wrong)
        return self

    def source(self, name: str) -> SourceConfig:
        """Return the source of that name; KeyError names those that exist."""
        for source in self.sources:
            if source.name == name:
                return source
        raise KeyError(f"no source {name!r}; configured: {', '.join(s.name for s in self.sources)}")

    def buckets_of(self, source: SourceConfig) -> int:
        """Return the number of partitions of a source."""
        return source.buckets or self.buckets

    def objective_of(self, source: SourceConfig) -> Objective:
        """Return the freshness objective of a source."""
        return source.objective or self.freshness.objective

    def chunking_of(self, source: SourceConfig) -> ChunkingConfig:
        """Return the chunking of a source."""
        return source.chunking or self.chunking
