"""The tables `answers`, `feedback` and `asked`, read and written; all of it blocks, so it runs in threads."""

import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow.compute as pc

from rag_core.stages.publication import latest_manifest
from rag_core.tables.blame import LedgerBlame
from rag_core.tables.delta import TableSlice
from rag_core.tables.log import append_rows
from rag_core.tables.store import Store
from serving.answers.questions import asked_rows
from serving.answers.rows import Row, cited_of, replay_of, states_of, with_runs


class Archive:
    """The tables of one store; safe to use from several threads."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._blame = LedgerBlame(store)
        self._blaming = threading.Lock()

    def blamed(self, rows: Sequence[Row]) -> list[Row]:
        """Add to each citation the Dagster run that wrote its chunk into the index, null where that is not known."""
        chunks: dict[str, set[str]] = {}
        for row in rows:
            chunks.setdefault(row["collection"], set()).update(citation["chunk_id"] for citation in cited_of(row))
        with self._blaming:
            runs = {collection: self._blame.runs_of(collection, wanted) for collection, wanted in chunks.items()}
        return [with_runs(row, runs[row["collection"]]) for row in rows]

    def write_answers(self, rows: Sequence[Row]) -> None:
        """Append answers. One that is appended twice, because the store failed after all, is read once."""
        append_rows(self.store, "answers", rows)

    def write_feedback(self, row: dict[str, Any]) -> None:
        """Append feedback."""
        append_rows(self.store, "feedback", [row])

    def write_counts(self, counts: Counter[tuple[str, str]]) -> None:
        """Append counts of questions."""
        append_rows(self.store, "asked", asked_rows(counts))

    def answer(self, answer_id: str) -> Row | None:
        """Return the row of an answer; None: there is none."""
        dataset, wanted = TableSlice.newest(self.store, "answers").dataset(), pc.field("answer_id") == answer_id
        for fragment in dataset.get_fragments():
            for group in fragment.split_by_row_group(wanted, schema=dataset.schema):
                # Counting reads the one column; the others, nearly all of the table, are read where the row is.
                if group.count_rows(filter=wanted):
                    found: list[Row] = group.to_table(dataset.schema, filter=wanted).to_pylist()
                    return found[0]
        return None

    def replay(self, row: Row) -> dict[str, Any]:
        """Return an answer for the API, with the runs of its citations and what became of their chunks."""
        cited = cited_of(row)
        if any("run_id" not in citation for citation in cited):
            (row,) = self.blamed([row])
        manifest = latest_manifest(self.store)
        served = manifest.collection if manifest else row["collection"]
        return replay_of(row, states_of(self.store, served, cited))
