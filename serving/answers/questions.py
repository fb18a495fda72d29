"""How often which question is asked: counted in memory, kept in the table `asked`."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from rag_core import ids
from rag_core.schemas import ASKED, TIMESTAMP
from rag_core.tables.delta import TableSlice
from rag_core.tables.store import Store
from serving.answers.rows import storable
from serving.retrieval.query import normalised

_MOST: Final = 10_000
_RECENT: Final = timedelta(days=30)


class QuestionCounts:
    """Counts since they were last taken; used from one event loop."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, question: str, mode: str, times: int = 1) -> None:
        """Count a question. Of very many different ones the later are not counted: the frequent ones are among them."""
        key = (storable(normalised(question)), mode)
        if key in self._counts or len(self._counts) < _MOST:
            self._counts[key] += times

    def take(self) -> Counter[tuple[str, str]]:
        """Return the counts and begin anew."""
        counts, self._counts = self._counts, Counter()
        return counts

    def give_back(self, counts: Counter[tuple[str, str]]) -> None:
        """Count again what could not be written."""
        for (question, mode), times in counts.items():
            self.add(question, mode, times)

    @property
    def now(self) -> Counter[tuple[str, str]]:
        """The counts so far."""
        return Counter(self._counts)


def asked_rows(counts: Counter[tuple[str, str]]) -> list[dict[str, Any]]:
    """Make the rows of counts."""
    until = datetime.now(UTC)
    return [
        {"query_key": query_key(question, mode), "question": question, "mode": mode, "asked": times, "until": until}
        for (question, mode), times in counts.items()
    ]


def query_key(question: str, mode: str) -> str:
    """Identify a question: upper and lower case are one."""
    return ids.digest(question.casefold(), mode)


def most_frequent(store: Store | None, counts: Counter[tuple[str, str]], limit: int) -> list[tuple[str, str]]:
    """Return (question, mode), the most frequent of the last 30 days first, then by their key.

    Args:
        store: Holds the table; None: counts alone.
        counts: That are not in the table yet.
        limit: Most to return.
    """
    rows = pa.Table.from_pylist(asked_rows(counts), schema=ASKED)
    if store is not None:
        recent = pc.field("until") >= pa.scalar(datetime.now(UTC) - _RECENT, TIMESTAMP)
        rows = pa.concat_tables([TableSlice.newest(store, "asked").read(where=recent), rows])
    sums = rows.group_by("query_key").aggregate([("asked", "sum"), ("question", "min"), ("mode", "min")])
    ranked = sums.sort_by([("asked_sum", "descending"), ("query_key", "ascending")]).slice(0, limit)
    return list(zip(ranked["question_min"].to_pylist(), ranked["mode_min"].to_pylist(), strict=True))
