"""Makes the reader of a configured source."""

from rag_core.config import FilesSource, JsonlSource, S3Source, SourceConfig
from rag_core.sources.base import Source
from rag_core.sources.files import FolderFiles
from rag_core.sources.globs import KeyFilter
from rag_core.sources.jsonl import JsonlRecords
from rag_core.sources.s3 import S3Objects
from rag_core.sources.slack import SlackDays


def open_source(config: SourceConfig) -> Source:
    """Return the reader of a source; it opens nothing until it is used."""
    keys = KeyFilter(config.include, config.exclude)
    if isinstance(config, FilesSource):
        return FolderFiles(config.name, config.root, keys, config.max_bytes)
    if isinstance(config, JsonlSource):
        return JsonlRecords(config.name, config.root, keys, config.max_bytes, config.id_field, config.modified_at_field)
    if isinstance(config, S3Source):
        return S3Objects.of(config)
    return SlackDays(config.name, config.root, keys, config.max_bytes)
