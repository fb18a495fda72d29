"""Results as bytes, for caches."""

from dataclasses import replace
from typing import Final

import orjson
from pydantic import TypeAdapter

from serving.retrieval.query import Found

_FOUND: Final = TypeAdapter(Found)


def to_bytes(found: Found) -> bytes:
    """Write a result."""
    return orjson.dumps(found)


def from_bytes(data: bytes) -> Found:
    """Read a result that `to_bytes` wrote; it says that it comes from a cache.

    Raises:
        ValueError: It is none, or one of another version of the program.
    """
    return replace(_FOUND.validate_json(data, strict=True), cached=True)
