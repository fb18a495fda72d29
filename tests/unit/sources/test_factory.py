"""Every kind has its reader, and none opens anything before it is used."""

from pathlib import Path

from rag_core.config import FilesSource, JsonlSource, S3Source, SlackSource
from rag_core.sources.factory import open_source


def test_readers_open_nothing_until_they_are_used() -> None:
    nowhere = Path("/nowhere/at/all")
    for config in (
        FilesSource(name="a", kind="files", root=nowhere),
        JsonlSource(name="a", kind="jsonl", root=nowhere),
        SlackSource(name="a", kind="slack", root=nowhere),
        S3Source(name="a", kind="s3", bucket="nowhere", endpoint_url="http://127.0.0.1:9"),
    ):
        assert open_source(config).name == "a"
