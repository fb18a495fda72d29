"""Makes the reader of a configured source."""

from rag_core.config import FilesSource, JsonlSource, SlackSource, SourceConfig
from rag_core.errors import ConfigError
from rag_core.sources.base import Source
from rag_core.sources.files import FolderFiles
from rag_core.sources.globs import KeyFilter
from rag_core.sources.jsonl import JsonlRecords
from rag_core.sources.slack import SlackDays


def open_source(config: SourceConfig) -> Source:
    """Return the reader of a source; it opens nothing until it is used.

    Raises:
        ConfigError: This version has no reader for the kind.
    """
    keys = KeyFilter(config.include, config.exclude)
    if isinstance(config, FilesSource):
        return FolderFiles(config.name, config.root, keys, config.max_bytes)
    if isinstance(config, JsonlSource):
        return JsonlRecords(config.name, config.root, keys, config.max_bytes, config.id_field, config.modified_at_field)
    if isinstance(config, SlackSource):
        return SlackDays(config.name, config.root, keys, config.max_bytes)
    raise ConfigError(
        f"source {config.name!r}: sources of kind `s3` cannot be read by this version; use `files`, `jsonl` or `slack`"
    )
