"""Reads what tests look at from one partition into a pandas frame: light columns as they are, heavy ones as measures.

Long texts and vectors are streamed in Arrow batches and only their measures are kept, so memory grows with the rows of
a partition and not with their size. The table is read as it lies: nulls in a column that must have none, or vectors of
several lengths, are what the tests are for.
"""

from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from rag_core.quality import patterns, vectors
from rag_core.tables.delta import LANES, PARTITIONED, SCHEMAS, TableSlice

if TYPE_CHECKING:
    import pandas as pd

_BATCH_ROWS = 2_048  # 12 MiB of vectors with 1,536 entries

ParentValues = Callable[[str, str], pa.Array]
"""The values of a column of another table, in the partition that is tested."""


def read_frame(current: TableSlice, names: Collection[str], parent_values: ParentValues) -> "pd.DataFrame":
    """Read columns and measures of a slice of one partition, and one lane if the table has lanes.

    Args:
        current: The partition.
        names: Columns, and measures such as `text.length`, `vector.norm`, `doc_id.in.documents.doc_id`.
        parent_values: Called for measures of the form `column.in.table.column`.
    """
    import pandas as pd

    wanted = dict.fromkeys(names)
    derived = [name for name in wanted if "@" in name]
    for name in derived:
        wanted |= dict.fromkeys(_bases(name))
    streamed = [name for name in wanted if name not in derived]
    parents = {name: parent_values(*name.split(".in.")[1].split(".")) for name in streamed if ".in." in name}
    parts = [
        pd.DataFrame(_measured(batch, streamed, parents))
        for batch in raw_batches(current, sorted({name.partition(".")[0] for name in streamed}))
    ]
    empty = {name: _empty(current.table, name) for name in streamed}
    frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(empty)
    for name in derived:
        frame[name] = _shared(frame, name) if ".shared@" in name else _document_share(frame, name)
    return frame


def raw_batches(current: TableSlice, columns: Collection[str]) -> Iterator[pa.RecordBatch]:
    """Stream columns of a slice as they are stored, without a cast to the declared schema."""
    conditions = []
    if current.partition_keys is not None and current.table in PARTITIONED:
        conditions.append(pc.field("partition_key").isin(list(current.partition_keys)))
    if current.lane is not None:
        conditions.append(pc.field(LANES[current.table]) == current.lane)
    condition = None
    for one in conditions:
        condition = one if condition is None else condition & one
    scanner = current.dataset().scanner(
        columns=list(columns), filter=condition, batch_size=_BATCH_ROWS, batch_readahead=2, fragment_readahead=1
    )
    yield from (batch for batch in scanner.to_batches() if batch.num_rows)


def _measured(batch: pa.RecordBatch, names: Collection[str], parents: dict[str, pa.Array]) -> dict[str, Any]:
    """Return the columns of the frame for a batch."""
    of_vectors: dict[str, dict[str, Any]] = {}
    columns: dict[str, Any] = {}
    for name in names:
        column, _, measure = name.partition(".")
        values = batch.column(column)
        if measure in ("norm", "nan_count", "hash"):
            if column not in of_vectors:
                of_vectors[column] = vectors.measure(values)
            columns[name] = of_vectors[column][measure]
        elif measure == "":
            columns[name] = _plain(values)
        elif measure == "length":
            columns[name] = pc.utf8_length(values).to_pandas()
        elif measure == "dim":
            columns[name] = pc.list_value_length(values).to_pandas()
        elif measure == "pii":
            columns[name] = patterns.find_all(values)
        else:
            columns[name] = _found(values, parents[name])
    return columns


def _plain(values: pa.Array) -> Any:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    return values.to_pandas()


def _found(values: pa.Array, parent: pa.Array) -> Any:
    found = pc.is_in(values, value_set=parent.cast(values.type))
    return pc.if_else(pc.is_valid(values), found, pa.scalar(None, pa.bool_())).to_pandas()


def _empty(table: str, name: str) -> Any:
    column, _, measure = name.partition(".")
    if not measure:
        return pa.array([], SCHEMAS[table].field(column).type).to_pandas()
    return pa.array([], pa.string() if measure == "pii" else pa.float64()).to_pandas()


def _bases(name: str) -> tuple[str, ...]:
    """Return what a derived measure is made of: `vector.shared@text_hash`, `text_hash.document_share@doc_id`."""
    column, _, rest = name.partition(".")
    measure, _, other = rest.partition("@")
    return (f"{column}.hash" if measure == "shared" else column, other)


def _shared(frame: "pd.DataFrame", name: str) -> Any:
    """1 for a text whose vector another text has as well, 0 for others; null but for the first row of a text."""
    of_vector, text = _bases(name)
    first = frame.drop_duplicates(text)
    texts = first.groupby(of_vector)[text].transform("count")
    return (texts > 1).astype(float).reindex(frame.index)


def _document_share(frame: "pd.DataFrame", name: str) -> Any:
    """Share of the documents in which the row's value occurs."""
    column, document = _bases(name)
    pairs = frame[[column, document]].drop_duplicates()
    shares = pairs[column].value_counts() / max(frame[document].nunique(), 1)
    return frame[column].map(shares)
