"""Every kind has its reader, or says plainly that it has none."""

from pathlib import Path

import pytest

from rag_core.config import FilesSource, JsonlSource, S3Source, SlackSource
from rag_core.errors import ConfigError
from rag_core.sources.factory import open_source


def test_s3_has_no_reader_yet() -> None:
    config = S3Source(name="lake", kind="s3", bucket="docs")
    with pytest.raises(ConfigError, match=r"source 'lake': sources of kind `s3` cannot be read by this version"):
        open_source(config)


def test_readers_open_nothing_until_they_are_used() -> None:
    nowhere = Path("/nowhere/at/all")
    for config in (
        FilesSource(name="a", kind="files", root=nowhere),
        JsonlSource(name="a", kind="jsonl", root=nowhere),
        SlackSource(name="a", kind="slack", root=nowhere),
    ):
        assert open_source(config).name == "a"
