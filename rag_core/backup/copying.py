"""Copies of files between stores, many at once, with the digest of what was copied."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Final, TypeVar

from rag_core.stages.common import Progress
from rag_core.tables.files import writing
from rag_core.tables.store import Store

_AT_ONCE: Final = 8
_PART_BYTES: Final = 4 * 1024 * 1024

Item = TypeVar("Item")
Result = TypeVar("Result")


def digest(store: Store, path: str) -> str:
    """Return the SHA-256 of a file below a store, as hexadecimal text."""
    found = hashlib.sha256()
    for part in _parts(store, path):
        found.update(part)
    return found.hexdigest()


def copy(source: Store, path: str, target: Store, to: str) -> str:
    """Copy a file; the target appears when it is complete.

    Returns:
        SHA-256 of what was written.
    """
    found = hashlib.sha256()
    with writing(target, to) as sink:
        for part in _parts(source, path):
            found.update(part)
            sink.write(part)
    return found.hexdigest()


def each(
    items: Sequence[Item], work: Callable[[Item], Result], *, what: str, on_progress: Progress
) -> Iterator[Result]:
    """Do work for each item, several at once, in no order; the first failure ends it."""
    on_progress(what, 0, len(items))
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="backup") as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            for number, future in enumerate(as_completed(futures), 1):
                yield future.result()
                on_progress(what, number, len(items))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _parts(store: Store, path: str) -> Iterable[bytes]:
    filesystem, root = store.filesystem()
    with filesystem.open_input_stream(f"{root}/{path}") as source:
        while part := source.read(_PART_BYTES):
            yield part
