"""Which rows of a table that only grows are new since they were last asked for: what counters are fed with."""

from datetime import timedelta
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

_OVERLAP: Final = timedelta(hours=1)  # processes write the times themselves: a row can appear behind a later one


class NewRows:
    """Tells rows that were not given before. Those that are there at the first call count as given.

    A counter begins at 0 in each process that exports it. Were it the number of rows that are kept, it would fall
    whenever old rows are removed, and Prometheus would take that for a restart and add all of them up again.

    Args:
        key: Column that identifies a row.
        time: Column by which the rows are ordered.
    """

    def __init__(self, key: str, time: str) -> None:
        self._key, self._time = key, time
        self._seen: frozenset[str] | None = None
        self._until: pa.Scalar | None = None

    def of(self, rows: pa.Table) -> pa.Table:
        """Return the new ones of all rows of the table."""
        if self._until is not None:
            rows = rows.filter(pc.field(self._time) >= self._until)
        keys = frozenset(rows[self._key].to_pylist())
        seen = self._seen
        newest = pc.max(rows[self._time])
        if newest.is_valid:
            self._until = pc.subtract(newest, pa.scalar(_OVERLAP, pa.duration("us")))
        self._seen = keys
        if seen is None:
            return rows.slice(0, 0)
        is_new = [key not in seen for key in rows[self._key].to_pylist()]
        return rows.filter(pa.array(is_new, pa.bool_()))
