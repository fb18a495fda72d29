"""Types of `rag.yaml` that say where everything is kept."""

from pydantic import Field, field_validator

from rag_core.config_base import Section


class StoreConfig(Section):
    """Where tables, vectors, work files and the local index live."""

    root: str = Field(description="Local folder or s3://bucket/prefix. A relative path is relative to the file.")

    @field_validator("root")
    @classmethod
    def _known_scheme(cls, value: str) -> str:
        if "://" in value and not value.startswith("s3://"):
            raise ValueError("a local folder or s3://bucket/prefix")
        return value
