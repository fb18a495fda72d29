"""Identifiers and fingerprints, all derived from content so that a repeated run names things the same way.

Every digest is BLAKE2b with 16 bytes, written as 32 hexadecimal characters: 2^64 items before a collision is likely.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_SEPARATOR = b"\x1f"  # cannot be confused with a character of a key: ("a", "bc") and ("ab", "c") must differ


def digest(*parts: str | bytes) -> str:
    """Hash the parts, in order, to 32 hexadecimal characters; part boundaries count."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        state.update(str(len(data)).encode())
        state.update(_SEPARATOR)
        state.update(data)
    return state.hexdigest()


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Hash settings independently of key order; values must be JSON-serialisable."""
    return digest(json.dumps(settings, sort_keys=True, ensure_ascii=True, separators=(",", ":")))


def doc_id(source: str, object_key: str, member: str = "") -> str:
    """Identify a document by where it lives: source, object key and, inside a mail or export, the member."""
    return digest("doc", source, object_key, member)


def root_doc_ids(source: str, object_keys: Iterable[str]) -> bytes:
    """Return the ids of objects' own documents, 16 bytes each and in order: `doc_id` in a third of the time."""
    begun = hashlib.blake2b(digest_size=16)
    for part in (b"doc", source.encode()):
        begun.update(b"%d%b%b" % (len(part), _SEPARATOR, part))
    found = bytearray()
    for key in object_keys:
        data = key.encode("utf-8", "surrogatepass")
        state = begun.copy()
        state.update(b"%d\x1f%b0\x1f" % (len(data), data))
        found += state.digest()
    return bytes(found)


def text_hash(text: str) -> str:
    """Hash a text exactly as it is embedded."""
    return digest("text", text)


def chunk_id(place: str, embedded_text_hash: str, occurrence: int) -> str:
    """Identify a chunk by place and text, so that text that merely moved inside its document keeps its id.

    Args:
        place: The document's partition and id. The partition is a part of it because an id must not stand in two
            partitions of a collection, not even while a document moves as the number of buckets is changed.
        embedded_text_hash: `text_hash` of the text that is embedded.
        occurrence: 0 for the first chunk of the document with this text, 1 for the second, and so on.
    """
    return digest("chunk", place, embedded_text_hash, str(occurrence))


def bucket_of(root_doc_id: str, buckets: int) -> int:
    """Return the hash bucket, 0 to buckets - 1, of an object's root document; it never moves."""
    return int(root_doc_id[:15], 16) % buckets


def partition_key(source: str, bucket: int, buckets: int) -> str:
    """Write a flat partition key such as `handbook__07`; zero-padded, so that keys sort by bucket."""
    width = max(2, len(str(buckets - 1)))
    return f"{source}__{bucket:0{width}d}"


def access_label(principals: Sequence[str]) -> str:
    """Intern a set of principals as one scalar label; order and repeats do not count."""
    return digest("acl", *sorted(set(principals)))
