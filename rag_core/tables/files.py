"""Writing files of the store, on local disk and S3 alike: a file is seen when it is complete, and not before."""

import io
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Protocol, cast

import pyarrow.fs as pafs

from rag_core.tables.store import Store

PART: Final = ".part"
"""How the name of a local file ends that is being written, or was when its process ended."""


class Sink(Protocol):
    """A file that is being written."""

    def write(self, data: Any) -> int:
        """Take bytes."""
        ...

    def tell(self) -> int:
        """Return how much was written."""
        ...

    def close(self) -> None:
        """Make the file appear."""
        ...

    def abort(self) -> None:
        """Give the file up."""
        ...


class _LocalSink(io.FileIO):
    """A local file under a name that nobody looks for, until it is complete."""

    def __init__(self, whole: Path) -> None:
        whole.parent.mkdir(parents=True, exist_ok=True)
        self._whole = whole
        self._part = whole.with_name(f"{whole.name}.{uuid.uuid4().hex[:8]}{PART}")
        self._given_up = False
        super().__init__(self._part, "wb")

    def write(self, data: Any) -> int:
        with memoryview(data) as view:
            left = view.cast("B") if view.nbytes else view
            while left.nbytes and not self._given_up:  # writers of Parquet end their files whatever happened
                left = left[super().write(left) :]
            return view.nbytes

    def close(self) -> None:
        if not self.closed:
            super().close()
            if not self._given_up:
                self._part.replace(self._whole)

    def abort(self) -> None:
        self._given_up = True
        with suppress(FileNotFoundError):
            self._part.unlink()

    def __del__(self) -> None:
        if not self.closed:
            self.abort()
        super().__del__()


def open_sink(store: Store, path: str) -> Sink:
    """Open a file for writing, in place of any other; it appears when it is closed, and not if it is given up.

    Args:
        store: Where.
        path: Relative to the root; folders are made as they are needed.
    """
    if store.is_local:
        return _LocalSink(Path(store.root, path))
    filesystem, root = store.filesystem()
    sink: Sink = cast("Any", filesystem).handler.sink(f"{root}/{path}")
    return sink


@contextmanager
def writing(store: Store, path: str) -> Iterator[Any]:
    """Write a file as `open_sink` does: it appears when the block ends, and not if the block raises.

    Raises:
        StoreError: S3 does not take it; OSError, if the disk does not.
    """
    sink = open_sink(store, path)
    try:
        yield sink
    except BaseException:
        sink.abort()
        raise
    sink.close()


def write_file(store: Store, path: str, data: "bytes | memoryview | Any") -> None:
    """Write a whole file, as `writing` does."""
    with writing(store, path) as sink:
        sink.write(data)


def read_file(store: Store, path: str) -> bytes | None:
    """Read a whole file; None if there is none."""
    filesystem, root = store.filesystem()
    try:
        with filesystem.open_input_stream(f"{root}/{path}") as source:
            return bytes(source.read())
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None


def remove_file(store: Store, path: str) -> None:
    """Delete a file; one that is not there is fine."""
    filesystem, root = store.filesystem()
    with suppress(FileNotFoundError):
        filesystem.delete_file(f"{root}/{path}")


def remove_folder(store: Store, path: str) -> None:
    """Delete a folder with all that is in it; one that is not there is fine."""
    filesystem, root = store.filesystem()
    with suppress(FileNotFoundError):
        filesystem.delete_dir(f"{root}/{path}")


def list_folder(store: Store, path: str, *, recursive: bool = False) -> list[pafs.FileInfo]:
    """List a folder; nothing is in one that is not there."""
    filesystem, root = store.filesystem()
    return list(
        filesystem.get_file_info(pafs.FileSelector(f"{root}/{path}", recursive=recursive, allow_not_found=True))
    )
