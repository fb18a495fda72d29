"""What the documents of a source are: by status, type and language; why some were rejected; which are the same."""

from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from rag_core.tables.delta import TableSlice

_EXAMPLES = 3
_GROUPS = 10
_COLUMNS = ("status", "mime", "language", "size_bytes")


@dataclass
class Reason:
    """Why documents were not taken: how many, and a few of them."""

    status: str
    reason: str
    count: int = 0
    uris: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Repeated:
    """Documents with the same content: how many, and a few of them."""

    count: int
    uris: tuple[str, ...]


@dataclass(frozen=True)
class Repeats:
    """What occurs more than once.

    Attributes:
        surplus: Documents beyond the first of each content.
        groups: Contents that occur more than once.
        largest: Those that occur most.
    """

    surplus: int
    groups: int
    largest: tuple[Repeated, ...]


@dataclass(frozen=True)
class DocumentFacts:
    """Documents of a source.

    Attributes:
        statuses: Status -> documents.
        mimes: Media type -> documents.
        languages: Language code -> documents with text; `unknown` where it cannot be told.
        size_bytes: Sum of the sizes.
        reasons: Why documents are empty or rejected, the most frequent first.
        same_bytes: Documents with the same bytes.
        same_text: Documents with text, and the same one.
    """

    statuses: dict[str, int]
    mimes: dict[str, int]
    languages: dict[str, int]
    size_bytes: int
    reasons: tuple[Reason, ...]
    same_bytes: Repeats
    same_text: Repeats

    @property
    def count(self) -> int:
        """All documents."""
        return sum(self.statuses.values())


def document_facts(documents: TableSlice) -> DocumentFacts:
    """Read the columns that tell it; no text is read."""
    statuses: Counter[str] = Counter()
    mimes: Counter[str] = Counter()
    languages: Counter[str] = Counter()
    size_bytes = 0
    for batch in documents.batches(_COLUMNS, batch_rows=65_536):
        statuses.update(_counted(batch.column("status")))
        mimes.update(_counted(batch.column("mime")))
        with_text = batch.filter(pc.equal(batch.column("status"), "ok"))
        languages.update(_counted(pc.fill_null(with_text.column("language"), "unknown")))
        size_bytes += pc.sum(batch.column("size_bytes")).as_py() or 0
    is_ok = pc.field("status") == "ok"
    return DocumentFacts(
        statuses=dict(statuses),
        mimes=dict(mimes),
        languages=dict(languages),
        size_bytes=size_bytes,
        reasons=_reasons(documents),
        same_bytes=_repeats(documents, "content_hash", pc.field("size_bytes") > 0),
        same_text=_repeats(documents, "text_hash", is_ok),
    )


def _counted(column: pa.Array) -> dict[str, int]:
    return {row["values"]: row["counts"] for row in pc.value_counts(column).to_pylist()}


def _reasons(documents: TableSlice) -> tuple[Reason, ...]:
    found: dict[tuple[str, str], Reason] = {}
    for batch in documents.batches(["status", "reason", "uri"], pc.field("status") != "ok", batch_rows=8_192):
        for row in batch.to_pylist():
            key = row["status"], row["reason"] or "no reason is given"
            reason = found.setdefault(key, Reason(*key))
            reason.count += 1
            if len(reason.uris) < _EXAMPLES:
                reason.uris.append(row["uri"])
    return tuple(sorted(found.values(), key=lambda one: (-one.count, one.status, one.reason)))


def _repeats(documents: TableSlice, column: str, where: pc.Expression) -> Repeats:
    values = pc.value_counts(documents.read([column], where)[column])
    counts = values.field("counts").to_numpy()
    repeated = pa.table({"value": values.field("values"), "count": values.field("counts")}).filter(
        pc.greater(values.field("counts"), 1)
    )
    order = [("count", "descending"), ("value", "ascending")]
    largest = repeated.sort_by(order).slice(0, _GROUPS)
    uris: dict[str, list[str]] = {}
    if largest.num_rows:
        which = where & pc.field(column).isin(largest["value"].combine_chunks())
        for row in documents.read([column, "uri"], which).to_pylist():
            uris.setdefault(row[column], []).append(row["uri"])
    groups = (
        Repeated(row["count"], tuple(sorted(uris.get(row["value"], ()))[:_EXAMPLES])) for row in largest.to_pylist()
    )
    return Repeats(int((counts - 1).sum()), repeated.num_rows, tuple(groups))
