"""The data files of a table, for Arrow to read."""

import pyarrow.dataset as pads
from deltalake import DeltaTable

from rag_core.tables import s3_access
from rag_core.tables.store import Store


def dataset_of(
    store: Store, name: str, table: DeltaTable, predicate: list[tuple[str, str, object]] | None = None
) -> pads.Dataset:
    """Open a table as a dataset, those of its files that a predicate of partition columns lets through."""
    # delta-rs's own files ask S3 for the end of each Parquet file, and then for one column after another.
    files = None if store.is_local else s3_access.table_files(store.s3, f"{store.root}/tables/{name}")
    return table.to_pyarrow_dataset(filesystem=files, file_pruning_predicate=predicate or None)
