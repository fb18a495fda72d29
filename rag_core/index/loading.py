"""Where a server keeps a collection for searching: copies, resource groups, in memory or mapped from disk.

None of it changes what a search answers, so it is not part of a collection's name: it is applied when one is loaded.
Source: https://milvus.io/docs/replica.md, resource_group.md and mmap.md.
"""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from rag_core.config import IndexConfig

if TYPE_CHECKING:
    from pymilvus import MilvusClient

_LOGGER = logging.getLogger(__name__)
_MMAP: Final = "mmap.enabled"
_OTHER_NUMBER: Final = "change the replica number"  # what a server says that cannot do it while a collection is loaded


def properties(*, mmap: bool) -> dict[str, str]:
    """Return the properties with which a server's collection is made."""
    return {_MMAP: "true"} if mmap else {}


def is_mapped(described: Mapping[str, Any]) -> bool:
    """Tell from `describe_collection`'s answer whether a collection is mapped from disk."""
    return str(described.get("properties", {}).get(_MMAP, "")).lower() == "true"


def map_from_disk(milvus: "MilvusClient", *, name: str, mmap: bool, timeout: float) -> None:
    """Change whether a collection is mapped from disk; it is not searchable until it is loaded the next time."""
    _LOGGER.warning("%s is released and loaded anew: index.mmap is now %s", name, str(mmap).lower())
    milvus.release_collection(name, timeout=timeout)
    milvus.alter_collection_properties(name, {_MMAP: str(mmap).lower()}, timeout=timeout)


def load(milvus: "MilvusClient", name: str, config: IndexConfig, *, timeout: float) -> None:
    """Load a collection as configured; at once if it is.

    Another number of copies is made while the collection is searched, where the server can do that. Where it cannot
    (2.3), the collection is released and loaded anew; if the new number finds no place, the old way is loaded again.

    Raises:
        MilvusException: No such resource group, too few query nodes, or whatever else the server says.
    """
    from pymilvus.exceptions import MilvusException

    asked = placement(config)
    try:
        milvus.load_collection(name, timeout=timeout, **asked)
    except MilvusException as error:
        if not asked or _OTHER_NUMBER not in str(error):
            raise
        _LOGGER.warning("%s is released and loaded anew with %s", name, asked)
        milvus.release_collection(name, timeout=timeout)
        try:
            milvus.load_collection(name, timeout=timeout, **asked)
        except MilvusException:
            # Searched by one copy is better than not at all; the error says what to do.
            milvus.release_collection(name, timeout=timeout)
            milvus.load_collection(name, timeout=timeout)
            raise


def placement(config: IndexConfig) -> dict[str, Any]:
    """Return what a load is asked for; empty for the server's defaults."""
    asked: dict[str, Any] = {}
    if config.replicas is not None:
        asked["replica_number"] = config.replicas
    if config.resource_groups:
        asked["resource_groups"] = list(config.resource_groups)
    return asked
