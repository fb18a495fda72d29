"""Files beside the tables that nobody needs any more: work of runs that died, and report pages."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import pyarrow.compute as pc
import pyarrow.fs as pafs

from rag_core.config import RagConfig
from rag_core.reports.pages import FOLDER, LATEST, safe_name
from rag_core.reports.publication_page import PUBLICATIONS
from rag_core.tables.delta import TableSlice
from rag_core.tables.files import PART
from rag_core.tables.store import Store

LEFT_AFTER: Final = timedelta(days=7)
"""A work folder that is older, and not of a run that goes on, was left by one that died."""

_OF_RUNS: Final = ("work/embedding", "work/spark")
_LOOKS: Final = "work/looks"


@dataclass(frozen=True)
class Cleared:
    """What was removed below a folder of the store, as paths relative to it."""

    folder: str
    paths: tuple[str, ...]


def clear_leftovers(store: Store, config: RagConfig, *, now: datetime, alive: Collection[str]) -> Iterator[Cleared]:
    """Remove work folders of runs that died, what was seen of sources that are gone, and pages without their rows.

    Args:
        store: Holds the files.
        config: Its sources, and how long results are kept.
        now: The present.
        alive: Ids of the runs that have not ended.
    """
    files = _Files(store)
    for folder in _OF_RUNS:
        dead = [one for one in files.folders(folder) if one.base_name not in alive and files.age(one, now) > LEFT_AFTER]
        yield Cleared(folder, files.remove(dead))
    # Put back, a source is looked at for the first time again: its documents were removed with it.
    sources = {source.name for source in config.sources}
    yield Cleared(_LOOKS, files.remove([one for one in files.folders(_LOOKS) if one.base_name not in sources]))
    yield Cleared("work", files.remove([one for one in files.parts("work") if files.age(one, now) > LEFT_AFTER]))
    yield Cleared(PUBLICATIONS, files.remove(_pages_without_verdict(store, files)))
    yield Cleared(f"{FOLDER}/sources", files.remove(_old_source_pages(config, files, now)))


def _pages_without_verdict(store: Store, files: "_Files") -> list[pafs.FileInfo]:
    ids = pc.unique(TableSlice.newest(store, "verdicts").read(["verdict_id"])["verdict_id"]).to_pylist()
    stay = {safe_name(name) for name in ids} | {LATEST.removesuffix(".html")}
    return [one for one in files.files(PUBLICATIONS) if one.base_name.rsplit(".", 1)[0] not in stay]


def _old_source_pages(config: RagConfig, files: "_Files", now: datetime) -> list[pafs.FileInfo]:
    sources, longest = {source.name for source in config.sources}, timedelta(days=config.retention.results_days)
    gone: list[pafs.FileInfo] = []
    for folder in files.folders(f"{FOLDER}/sources"):
        pages = files.files(f"{FOLDER}/sources/{folder.base_name}")
        old = [one for one in pages if files.age(one, now) > longest]
        if folder.base_name not in sources and len(old) == len(pages):
            gone.append(folder)
        else:
            gone += [one for one in old if one.base_name.rsplit(".", 1)[0] != LATEST.removesuffix(".html")]
    return gone


class _Files:
    """The store's files, on local disk and S3 alike."""

    def __init__(self, store: Store) -> None:
        self._filesystem, self._root = store.filesystem()
        self._is_local = store.is_local

    def folders(self, folder: str) -> list[pafs.FileInfo]:
        """List the folders in a folder; none if it is not there."""
        return [one for one in self._infos(folder) if one.type == pafs.FileType.Directory]

    def files(self, folder: str) -> list[pafs.FileInfo]:
        """List the files in a folder; none if it is not there."""
        return [one for one in self._infos(folder) if one.type == pafs.FileType.File]

    def parts(self, folder: str) -> list[pafs.FileInfo]:
        """List the files below a folder that were being written when their process ended; in S3 there are none."""
        if not self._is_local:
            return []
        selector = pafs.FileSelector(f"{self._root.rstrip('/')}/{folder}", recursive=True, allow_not_found=True)
        return [one for one in self._filesystem.get_file_info(selector) if one.path.endswith(PART)]

    def age(self, info: pafs.FileInfo, now: datetime) -> timedelta:
        """Return how long ago a file, or the newest file of a folder, was written; an empty folder counts as new."""
        within = [info]
        if info.type == pafs.FileType.Directory:
            within = self._filesystem.get_file_info(pafs.FileSelector(info.path, recursive=True)) or [info]
        times = [one.mtime for one in within if one.mtime is not None]  # S3 knows no time of a folder
        return now - max(times).astimezone(UTC) if times else timedelta()

    def remove(self, infos: list[pafs.FileInfo]) -> tuple[str, ...]:
        """Delete files and folders; what another process deleted meanwhile is fine."""
        for info in infos:
            try:
                if info.type == pafs.FileType.Directory:
                    self._filesystem.delete_dir(info.path)
                else:
                    self._filesystem.delete_file(info.path)
            except FileNotFoundError:
                continue
        return tuple(info.path.removeprefix(f"{self._root.rstrip('/')}/") for info in infos)

    def _infos(self, folder: str) -> list[pafs.FileInfo]:
        selector = pafs.FileSelector(f"{self._root.rstrip('/')}/{folder}", allow_not_found=True)
        return sorted(self._filesystem.get_file_info(selector), key=lambda info: str(info.path))
