"""What the parser is told, as one value that travels to the child process, and the fingerprint of the parser."""

from functools import cache
from importlib.metadata import version
from typing import Final

from pydantic import Field

from rag_core import ids
from rag_core.config import ArchiveLimits, JsonlSource, ParsingConfig, SourceConfig
from rag_core.config_base import Section

PARSER_VERSION: Final = 1  # move it when the text of an unchanged document would change


class ParseSettings(Section):
    """Limits and field names for one source."""

    timeout_s: float = Field(default=60.0, gt=0, description="Time limit per object, in seconds.")
    memory_mib: int = Field(default=2048, ge=256, description="Memory the child may use beyond its start.")
    max_bytes: int = Field(default=64 * 1024 * 1024, gt=0, description="Larger objects and members are rejected.")
    archive: ArchiveLimits = Field(default_factory=ArchiveLimits, description="Bounds on archives and mails.")
    id_field: str = Field(default="_id", description="jsonl: the record's own id.")
    text_field: str = Field(default="text", description="jsonl: the text.")
    title_field: str = Field(default="title", description="jsonl: the title.")
    modified_at_field: str | None = Field(default=None, description="jsonl: an ISO 8601 time.")
    principals_field: str | None = Field(default=None, description="jsonl: a list of principals.")

    @classmethod
    def of(cls, parsing: ParsingConfig, source: SourceConfig) -> "ParseSettings":
        """Combine the parser's limits with what one source says."""
        fields = {}
        if isinstance(source, JsonlSource):
            names = ("id_field", "text_field", "title_field", "modified_at_field", "principals_field")
            fields = {name: getattr(source, name) for name in names}
        return cls.model_validate(
            {
                "timeout_s": parsing.timeout_s,
                "memory_mib": parsing.memory_mib,
                "archive": parsing.archive,
                "max_bytes": source.max_bytes,
                **fields,
            }
        )


@cache
def _kreuzberg_version() -> str:
    return version("kreuzberg")


_LIMITS: Final = {"timeout_s", "memory_mib", "max_bytes"}


def parser_fingerprint(settings: ParseSettings, *, rejected: bool = False) -> str:
    """Identify the parser: its version, kreuzberg's, and every setting that can change a document's text or status.

    Limits of time, memory and size count for rejected documents only: another limit may let them pass, and does not
    matter to those that passed.
    """
    relevant = settings.model_dump(mode="json", exclude=set() if rejected else _LIMITS)
    return ids.fingerprint({"parser": PARSER_VERSION, "kreuzberg": _kreuzberg_version(), "settings": relevant})
