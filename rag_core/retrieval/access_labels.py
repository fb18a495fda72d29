"""Reading which access labels there are: the distinct labels of the documents, with their principals and sources."""

import logging
from collections import defaultdict
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
from deltalake import DeltaTable

from rag_core import ids
from rag_core.retrieval.visible import AccessMap
from rag_core.tables.dataset import dataset_of
from rag_core.tables.delta import newest_table, state_of
from rag_core.tables.store import Store

_LOGGER = logging.getLogger(__name__)
_COLUMNS: Final = ["access_label", "source", "principals"]


@dataclass(frozen=True, slots=True)
class _Labelled:
    """Documents of one file that have the same label and source."""

    label: str
    source: str
    principals: frozenset[str]


class LabelReader:
    """The labels of the documents with status ok. A look reads only files that are new since the last one.

    Not for use by several threads at once.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._state: tuple[str, int] | None = None
        self._files: dict[str, frozenset[_Labelled]] = {}
        self._map = AccessMap()

    def read(self) -> AccessMap:
        """Return the labels of the newest version of the documents.

        A label whose rows name other principals than those that it was made from admits nobody: one of the two is
        wrong, and it cannot be told which.

        Raises:
            PermanentError: An earlier version of the program wrote the table.
            OSError: The store cannot be read; what was read before is kept for the next look.
        """
        with newest_table(self._store, "documents") as table:
            state = state_of(table)
            if state != self._state:
                is_another = self._state is None or state[0] != self._state[0]
                self._files = self._read_new(table, {} if is_another else self._files)
                self._map = _joined(self._files)
                self._state = state
        return self._map

    def _read_new(self, table: DeltaTable, known: dict[str, frozenset[_Labelled]]) -> dict[str, frozenset[_Labelled]]:
        actions = pa.table(table.get_add_actions(flatten=True))
        paths: list[str] = actions["path"].to_pylist()
        if not paths:
            return {}
        partitions = dict(zip(paths, actions["partition.partition_key"].to_pylist(), strict=True))
        current = {path: known[path] for path in paths if path in known}
        new = sorted({partitions[path] for path in paths if path not in current})
        if new:
            # Opening a file through the dataset costs up to a millisecond: only partitions with new files.
            dataset = dataset_of(self._store, "documents", table, [("partition_key", "in", new)])
            for fragment in dataset.get_fragments():
                if fragment.path not in current:
                    current[fragment.path] = _labels_of(fragment, dataset.schema)
        return current


def _labels_of(fragment: pads.Fragment, schema: pa.Schema) -> frozenset[_Labelled]:
    found: set[_Labelled] = set()
    batches = fragment.to_batches(
        schema=schema, columns=_COLUMNS, filter=pads.field("status") == "ok", use_threads=False
    )
    for batch in batches:
        keys = pa.table({"label": batch["access_label"], "source": batch["source"], "row": np.arange(batch.num_rows)})
        rows = keys.group_by(["label", "source"]).aggregate([("row", "min")])["row_min"]
        for row in batch.take(rows.combine_chunks()).to_pylist():
            found.add(_Labelled(row["access_label"], row["source"], frozenset(row["principals"] or ())))
    return frozenset(found)


def _joined(files: dict[str, frozenset[_Labelled]]) -> AccessMap:
    principals: dict[str, frozenset[str]] = {}
    sources: defaultdict[str, set[str]] = defaultdict(set)
    for one in frozenset[_Labelled]().union(*files.values()):
        if ids.access_label(tuple(one.principals)) != one.label:
            _LOGGER.error("access label %s of source %s is not that of its principals: hidden", one.label, one.source)
            continue
        principals[one.label] = one.principals
        sources[one.label].add(one.source)
    return AccessMap(principals, {label: frozenset(names) for label, names in sources.items()})
