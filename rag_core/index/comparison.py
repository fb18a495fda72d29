"""How the rows of a partition differ from those of its ledger: pure, over tables of ids and hashes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from rag_core.index.ledger import IDENTITY

KINDS: Final = ("missing", "orphaned", "duplicated", "stale", "unsearchable")


@dataclass(frozen=True)
class Difference:
    """Ids in which a partition differs from its ledger, sorted; an id is of one kind only.

    Attributes:
        missing: In the ledger, not in Milvus.
        orphaned: In Milvus, in no ledger row of the collection.
        duplicated: More than once in this partition; or here although the ledger has it in another.
        stale: With another row hash, text hash or model fingerprint than in the ledger.
        unsearchable: Listed, but not found by the row's own vector; only sampled rows.
        owners: Of those of `duplicated` that belong to another partition: that partition's key.
    """

    missing: tuple[str, ...] = ()
    orphaned: tuple[str, ...] = ()
    duplicated: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    unsearchable: tuple[str, ...] = ()
    owners: Mapping[str, str] = field(default_factory=dict)

    def ids(self, kind: str) -> tuple[str, ...]:
        """Return the ids of a kind."""
        found: tuple[str, ...] = getattr(self, kind)
        return found

    @property
    def is_empty(self) -> bool:
        """Whether nothing differs."""
        return not any(self.ids(kind) for kind in KINDS)


def compare(ledger: pa.Table, held: pa.Table, *, doubled: Iterable[str] = ()) -> Difference:
    """Compare the rows of a partition with those of the ledger.

    Args:
        ledger: `IDENTITY` of each row that must be there; no chunk_id twice.
        held: `IDENTITY` of each row that is there; a chunk_id may come more than once.
        doubled: Ids of which more rows are known to be there than `held` shows.

    Returns:
        The differences that a listing can show; nothing is unsearchable, and nobody owns an orphan.
    """
    held_ids, ledger_ids = held["chunk_id"].combine_chunks(), ledger["chunk_id"].combine_chunks()
    position = pc.index_in(held_ids, ledger_ids)
    is_orphan = position.is_null()
    per_id = held.group_by("chunk_id").aggregate([([], "count_all")])
    repeated = per_id.filter(pc.greater(per_id["count_all"], 1))["chunk_id"]
    orphaned = set(held_ids.filter(is_orphan).to_pylist())
    duplicated = {*repeated.to_pylist(), *doubled} - orphaned
    expected = ledger.take(position.drop_null())
    rows = held.filter(pc.invert(is_orphan))
    differs = pa.chunked_array([pa.repeat(pa.scalar(False), rows.num_rows)])
    for name in IDENTITY[1:]:
        differs = pc.or_(differs, pc.fill_null(pc.not_equal(rows[name], expected[name]), True))
    stale = set(rows["chunk_id"].filter(differs).to_pylist()) - duplicated
    missing = ledger_ids.filter(pc.invert(pc.is_in(ledger_ids, held_ids)))
    return Difference(
        missing=tuple(sorted(missing.to_pylist())),
        orphaned=tuple(sorted(orphaned)),
        duplicated=tuple(sorted(duplicated)),
        stale=tuple(sorted(stale)),
    )
