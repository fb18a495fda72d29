"""Results as bytes, for caches."""

from typing import Any

import orjson

from rag_core.retrieval.search import Hit
from serving.retrieval.query import Found, Passage


def to_bytes(found: Found) -> bytes:
    """Write a result."""
    return orjson.dumps(found)


def from_bytes(data: bytes) -> Found:
    """Read a result that `to_bytes` wrote; it says that it comes from a cache.

    Raises:
        ValueError, TypeError, KeyError: It is none, or one of another version of the program.
    """
    values: dict[str, Any] = orjson.loads(data)
    passages = tuple(_passage(one) for one in values.pop("passages"))
    return Found(**{**values, "passages": passages, "cached": True})


def _passage(values: dict[str, Any]) -> Passage:
    hit = values.pop("hit")
    start, end = values.pop("span")
    return Passage(hit=Hit(**{**hit, "heading_path": tuple(hit["heading_path"])}), span=(start, end), **values)
