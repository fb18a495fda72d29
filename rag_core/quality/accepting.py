"""Accepting jumps: present values become the history, and what follows from them behind is not held against it either.

Documents that were removed on purpose take their chunks, vectors and index rows with them, a stage later each. Without
this, every one of these tables would have to be accepted by itself, after a run of its own.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from rag_core.config import RagConfig
from rag_core.quality import results
from rag_core.quality.loading import load_declarations
from rag_core.quality.results import Measured, Result, Tested
from rag_core.quality.running import run_tests
from rag_core.tables.delta import LANES, TableSlice, lanes_of
from rag_core.tables.store import Store

_ORDER: Final = ("documents", "chunks", "embeddings", "index_partitions")


def jumped(current: TableSlice, config: RagConfig, *, run_id: str, tests: Collection[str] | None = None) -> set[str]:
    """Return the partitions of a slice that fail a test against their history now; arguments as of `run_tests`."""
    declared = load_declarations(config)[current.table].tests
    names = [one.name for one in declared if one.settings.on_history and (tests is None or one.name in tests)]
    found = run_tests(current, config, run_id=run_id, tests=names) if names else []
    return {result.partition_key for result in found if result.outcome != "pass"}


def begin_anew(store: Store, config: RagConfig, accepted: Mapping[str, Collection[str]], *, run_id: str) -> None:
    """Let the tables behind accepted jumps begin their history anew: their next result is compared with nothing.

    Args:
        store: Holds the tables.
        config: Names the user's own tests.
        accepted: Table -> its partitions whose jumps were accepted.
        run_id: Kept with the notes.
    """
    pending: list[tuple[Result, Sequence[tuple[str, str]]]] = []
    behind: set[str] = set()
    for table in _ORDER:
        for key in sorted(behind):
            for lane in lanes_of(store, table) if table in LANES else ("",):
                tested = Tested(run_id, table, lane, key, TableSlice.newest(store, table).version, "")
                pending += [(note, ()) for note in _notes(config, tested)]
        behind |= set(accepted.get(table, ()))
    results.append(store, pending)


def _notes(config: RagConfig, tested: Tested) -> Iterator[Result]:
    for test in load_declarations(config)[tested.table].tests:
        if test.settings.on_history:
            found = Measured(True, None, "anything, once", 0)
            sentence = "A jump before this table was accepted: the next result begins the history."
            yield results.result_of(tested, results.ACCEPTED, test, test.settings, found, sentence)
