"""Work on many partitions at once, of which a few may fail: the others are done all the same.

All are tried together, which is cheapest. What fails is cut in half and tried again, so that of n partitions with one
bad among them all but that one are done, with about 2 log2(n) tries. Work that was done before a try failed is not
lost: stages do only what differs.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from rag_core.errors import ConfigError, ImplausibleShrinkError, SourceError

T = TypeVar("T")

_LOG = logging.getLogger(__name__)

WHOLE: Final = (ConfigError, ImplausibleShrinkError, SourceError)
"""Errors that are about all partitions of a source, so that smaller tries cannot help."""

_GIVE_UP_AFTER: Final = 3
"""Single partitions that fail before any succeeded: then what is wrong is not the partitions."""


@dataclass(frozen=True)
class Isolated(Generic[T]):
    """What became of the partitions.

    Attributes:
        results: Keys that were done together, and what their work returned.
        failures: The error of each key that failed, or was not tried any more because nothing succeeded.
    """

    results: tuple[tuple[tuple[str, ...], T], ...]
    failures: dict[str, Exception]


def isolated(keys: Sequence[str], work: Callable[[tuple[str, ...]], T]) -> Isolated[T]:
    """Do work on all keys, so that those that fail do not stop the others.

    Args:
        keys: Partition keys.
        work: Called with some of them, possibly several times for one; it must be repeatable.

    Returns:
        Every key is in exactly one of results and failures.
    """
    results: list[tuple[tuple[str, ...], T]] = []
    failures: dict[str, Exception] = {}
    waiting = [tuple(keys)] if keys else []
    while waiting:
        some = waiting.pop()
        try:
            results.append((some, work(some)))
        except Exception as error:  # noqa: BLE001 -- whatever it is, the other partitions are not to suffer
            if len(some) > 1 and not isinstance(error, WHOLE):
                _LOG.info("%d partitions failed together and are tried in halves: %s", len(some), error)
                middle = len(some) // 2
                waiting += [some[middle:], some[:middle]]
                continue
            failures.update(dict.fromkeys(some, error))
            if isinstance(error, WHOLE) or (not results and len(failures) >= _GIVE_UP_AFTER):
                failures.update({key: error for rest in waiting for key in rest})
                break
    return Isolated(tuple(results), failures)
