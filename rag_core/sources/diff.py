"""What changed in a source since the last look. Pure: a listing and what the documents table knows, nothing else."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rag_core.sources.base import SourceObject


@dataclass(frozen=True, slots=True)
class SeenObject:
    """What the documents table knows of an object.

    Attributes:
        fingerprint: The object's fingerprint at the last look (`object_fingerprint`).
        content_hash: Digest of its bytes.
        parser_fingerprint: The parser that made its documents.
    """

    fingerprint: str
    content_hash: str
    parser_fingerprint: str


@dataclass(frozen=True)
class ObjectDiff:
    """The difference between a listing and what was seen before.

    Attributes:
        new: Objects whose key was not seen, in listing order.
        changed: Objects with another fingerprint, or parsed by another parser, in listing order.
        deleted: Keys that were seen and are no longer listed, sorted.
        unchanged: Number of all other objects.
        renamed: (old key, new key) where one deleted and one new object, and no other, have the same fingerprint; for
            reports only, both are in `deleted` and `new` too.
    """

    new: tuple[SourceObject, ...]
    changed: tuple[SourceObject, ...]
    deleted: tuple[str, ...]
    unchanged: int
    renamed: tuple[tuple[str, str], ...]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.new or self.changed or self.deleted)


def diff(listing: Iterable[SourceObject], seen: Mapping[str, SeenObject], *, parser_fingerprint: str) -> ObjectDiff:
    """Compare a listing of one source with what was seen of it.

    Args:
        listing: Every object of the source, in any order; read once.
        seen: Object key to what is known of it.
        parser_fingerprint: The parser that would parse now.

    Raises:
        ValueError: A key is listed twice.
    """
    new: list[SourceObject] = []
    changed: list[SourceObject] = []
    listed: set[str] = set()
    for item in listing:
        if item.key in listed:
            raise ValueError(f"source {item.source!r} lists {item.key!r} twice; keys must be unique")
        listed.add(item.key)
        known = seen.get(item.key)
        if known is None:
            new.append(item)
        elif known.fingerprint != item.fingerprint or known.parser_fingerprint != parser_fingerprint:
            changed.append(item)
    deleted = tuple(sorted(seen.keys() - listed))
    unchanged = len(listed) - len(new) - len(changed)
    return ObjectDiff(tuple(new), tuple(changed), deleted, unchanged, _renamed(new, deleted, seen))


def _renamed(
    new: list[SourceObject], deleted: tuple[str, ...], seen: Mapping[str, SeenObject]
) -> tuple[tuple[str, str], ...]:
    arrived = Counter(item.fingerprint for item in new)
    left = Counter(seen[key].fingerprint for key in deleted)
    old_keys = {seen[key].fingerprint: key for key in deleted}
    return tuple(
        (old_keys[item.fingerprint], item.key)
        for item in new
        if arrived[item.fingerprint] == 1 and left[item.fingerprint] == 1
    )
