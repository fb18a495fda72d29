"""Which access labels a caller may see: a label stands for the set of principals that may read a document."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class AccessMap:
    """The labels that documents have now.

    Attributes:
        principals: Label -> who may read the documents that have it.
        sources: Label -> sources that have documents with it.
    """

    principals: Mapping[str, frozenset[str]] = field(default_factory=dict)
    sources: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def labels_for(self, principals: Collection[str]) -> tuple[str, ...]:
        """Return the labels that admit any of the principals, sorted; none: nothing is found.

        A label that documents got since this map was read is not among them: what is new is hidden until it is known.
        """
        mine = frozenset(principals)
        return tuple(sorted(label for label, admitted in self.principals.items() if admitted & mine))

    def sources_of(self, labels: Collection[str]) -> frozenset[str]:
        """Return the sources that have documents with any of the labels."""
        return frozenset().union(*(self.sources.get(label, frozenset()) for label in labels))
