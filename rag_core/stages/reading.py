"""Parses the objects of a listing, and those again that were elsewhere by the time they were read."""

import logging
from collections.abc import Sequence
from typing import Final

from rag_core.engine.base import Engine, ParseJob
from rag_core.sources.base import SourceObject
from rag_core.sources.factory import open_source
from rag_core.stages.common import Progress
from rag_core.tables.change import StagedFile, read_staged
from rag_core.tables.store import Store

_log = logging.getLogger(__name__)

_TRIES: Final = 3


def parse_listed(
    items: Sequence[SourceObject], job: ParseJob, engine: Engine, *, on_progress: Progress
) -> list[StagedFile]:
    """Parse objects; what is not where it was listed is listed again, because a source can change under the reader.

    A line of a JSONL file moves when one is put in before it. Its key and fingerprint stay, so that no later look would
    find it changed: without its documents it would be missing until every object is compared again.

    Args:
        items: Objects of one source.
        job: How to parse them.
        engine: Where parsing runs.
        on_progress: Told of parsed objects.

    Returns:
        Rows of all objects that the source still has. One that moves all the time has none: the next comparison of
        every object finds it.

    Raises:
        SourceError: The source cannot be listed or read.
    """
    files: list[StagedFile] = []
    for number in range(_TRIES):
        made = engine.parse(items, job, on_progress=on_progress)
        files += made
        missing = {item.key for item in items} - _keys(job.store, made)
        if not missing:
            return files
        if number == _TRIES - 1:
            _log.warning("source %r: %d objects moved each time they were read", job.source.name, len(missing))
            break
        items = [item for item in open_source(job.source).list() if item.key in missing]
        if not items:
            return files
        _log.info("source %r: %d objects moved while they were read; they are read again", job.source.name, len(items))
    return files


def _keys(store: Store, files: Sequence[StagedFile]) -> set[str]:
    """Return the keys of objects that have rows."""
    batches = read_staged(store, "documents", files, columns=["object_key"])
    return {key for batch in batches for key in batch["object_key"].to_pylist()}
