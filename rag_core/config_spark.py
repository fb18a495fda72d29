"""Types of `rag.yaml` that say where large changes are parsed and chunked."""

from typing import Any

from pydantic import Field, field_validator

from rag_core.config_base import MIB, Section


class SparkConfig(Section):
    """The Spark that parses and chunks large changes."""

    master: str = Field(default="local[*]", description="Spark master URL.")
    remote: str | None = Field(default=None, description="Spark Connect URL; wins over master.")
    wait_s: float = Field(
        default=60.0, gt=0, description="How long a Connect server that does not answer is asked again."
    )
    driver_memory: str = Field(default="1g", description="Heap of the local driver.")
    in_process_max_objects: int = Field(
        default=2_048, ge=0, description="Changes up to this many objects run in the process itself, without a JVM."
    )
    in_process_max_bytes: int = Field(
        default=64 * MIB, ge=0, description="Changes up to this many bytes run in the process itself."
    )
    conf: dict[str, str] = Field(default_factory=dict, description="Further Spark settings.")

    @field_validator("conf", mode="before")
    @classmethod
    def _as_spark_writes_them(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: str(item).lower() if isinstance(item, bool | int | float) else item for key, item in value.items()}
