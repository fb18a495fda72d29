"""What one request works on: one index, one map of access, one set of versions, from its beginning to its end."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from rag_core import ids
from rag_core.retrieval.served import ServedIndex
from rag_core.retrieval.visible import AccessMap
from rag_core.stages import term_statistics
from rag_core.stages.publication import Manifest
from serving.caller import Caller


@dataclass(frozen=True)
class Snapshot:
    """What is served at one moment.

    Attributes:
        index: The published collection.
        access: Labels and who may see them.
        versions: Source -> digest of what the ledger says of the source's partitions in this collection.
        looked_at: Monotonic time of the look that found all this.
        seen_at: When these versions were first found, in seconds since 1970: what they stand for was written before.
    """

    index: ServedIndex
    access: AccessMap
    versions: Mapping[str, str]
    looked_at: float
    seen_at: float = 0.0

    def labels_for(self, caller: Caller) -> tuple[str, ...] | None:
        """Return the labels that a caller may see; None (no restriction) only for one who sees all."""
        return None if caller.sees_all else self.access.labels_for(caller.principals)

    def version_for(self, sources: Collection[str] | None) -> str:
        """Return the version of what a query restricted to some sources depends on; None: all sources.

        It differs after any change to what such a query may find: another collection, other search parameters or term
        statistics of it, or a change of a partition of these sources; and only then. A publication alone is no such
        change: every run that changed documents of any source makes one.
        """
        names = sorted(self.versions if sources is None else set(sources) & set(self.versions))
        manifest = self.index.manifest
        parts = [f"{name}={self.versions[name]}" for name in names]
        return ids.digest(manifest.collection, manifest.search_params, statistics_version(manifest), *parts)


def statistics_version(manifest: Manifest) -> str:
    """Return the version of the term statistics that a manifest names; empty if it names none."""
    return str(json.loads(manifest.table_versions).get(term_statistics.TABLE, ""))
