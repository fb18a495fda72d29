"""Runs the declared tests of a slice, partition by partition, and keeps what they found.

A result holds for a partition's content: the files of the partition, and of the other tables that a test compares it
with. What was tested before is not tested again, however often the table was committed since.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from rag_core import ids
from rag_core.config import RagConfig
from rag_core.partitions import source_of
from rag_core.quality import results, validations
from rag_core.quality.declared import DeclaredTest
from rag_core.quality.lanes import Lanes
from rag_core.quality.loading import load_declarations
from rag_core.quality.results import ALL_PARTITIONS, Baseline, Result, Tested
from rag_core.tables.delta import LANES, PARTITIONED, TableSlice, partition_values
from rag_core.tables.store import Store

if TYPE_CHECKING:
    from rag_core.quality.partition import PartitionTester

_MEASURES = "1"  # moves when the same rows would measure otherwise, so that earlier results do not count any more
_PENDING = 256  # results that are held before they are stored

Progress = Callable[[str, int, int], None]
"""Called as (what is tested, partitions done, partitions in all)."""


def run_tests(
    current: TableSlice,
    config: RagConfig,
    *,
    run_id: str,
    tests: Collection[str] | None = None,
    force: bool = False,
    accept: bool = False,
    on_progress: Progress | None = None,
) -> list[Result]:
    """Test the partitions of a slice, or return what testing the same content found before.

    Args:
        current: Partitions of a table; without partition keys all that hold rows, without a lane
            every lane that follows the documents.
        config: Names the user's own tests; its sources may have settings of their own.
        run_id: Kept with the results.
        tests: Names of tests; None means all.
        force: Test again what was tested before.
        accept: Run the tests against history only, and leave history out: present values pass, and are what later ones
            are compared with.
        on_progress: Called after each partition.

    Returns:
        A result for each test and partition, by partition and in the order of the declarations. A test or partition
        that cannot be evaluated has the outcome error and does not stop the others.

    Raises:
        ConfigError: A declaration is wrong.
    """
    declared = load_declarations(config).get(current.table)
    if declared is None:
        return []
    wanted = [test for test in declared.tests if tests is None or test.name in tests]
    if accept:
        wanted = [test for test in wanted if test.settings.on_history]
    settings = [[test.name, test.kind, test.columns, test.settings.model_dump(mode="json")] for test in declared.tests]
    suite = ids.fingerprint({"tests": settings, "measures": _MEASURES})
    lanes = Lanes(current.store, config)
    found: list[Result] = []
    for lane in lanes.tested(current.table) if current.lane is None else (current.lane,):
        tested = Tested(run_id, current.table, lane or "", "", current.version, suite)
        one = _Lane(replace(current, lane=lane), config, lanes, tested, wanted, force=force, accept=accept)
        found += one.run(on_progress)
    return found


@dataclass
class _Lane:
    """The partitions of one lane."""

    current: TableSlice
    config: RagConfig
    lanes: Lanes
    tested: Tested
    tests: Sequence[DeclaredTest]
    force: bool
    accept: bool

    def run(self, on_progress: Progress | None) -> list[Result]:
        contents = {(key, test.name): self._content(key, test) for key in self._keys for test in self._of(key)}
        known: dict[tuple[str, str], Result] = {}
        if not (self.force or self.accept) and contents:
            for result in results.stored_results(self.current.store, self.tested, set(contents.values()), self._keys):
                if contents.get((result.partition_key, result.test)) == result.content:
                    known[result.partition_key, result.test] = result
        missing = {key: [test for test in self._of(key) if (key, test.name) not in known] for key in self._keys}
        keys = [key for key, tests in missing.items() if tests]
        for result in self._test(keys, missing, contents, on_progress):
            known[result.partition_key, result.test] = result
        return [known[key, test.name] for key in self._keys for test in self._of(key)]

    def _test(
        self,
        keys: Sequence[str],
        missing: Mapping[str, Sequence[DeclaredTest]],
        contents: Mapping[tuple[str, str], str],
        on_progress: Progress | None,
    ) -> Iterator[Result]:
        if not keys:
            return
        history = self._history(keys, missing)
        store, pending = self.current.store, []
        for number, key in enumerate(keys):
            outcome = self._tester.test(
                key, missing[key], {name: base for (of, name), base in history.items() if of == key}
            )
            tested = replace(self.tested, partition_key=key)
            for test in missing[key]:
                sentence, found = outcome.found[test.name]
                result = results.result_of(
                    tested, contents[key, test.name], test, self._settings(key, test), found, sentence
                )
                pending.append((result, () if isinstance(found, Exception) else found.failing))
                yield result
            for name, document in outcome.documents.items():
                validations.save(store, self.tested.run_id, name, document)
            if len(pending) >= _PENDING:
                results.append(store, pending)
                pending = []
            if on_progress is not None:
                on_progress(key, number + 1, len(keys))
        results.append(store, pending)
        validations.prune(store)

    @cached_property
    def _tester(self) -> "PartitionTester":
        from rag_core.quality.partition import PartitionTester

        return PartitionTester(self.current, self.config, self.lanes)

    def _history(
        self, keys: Sequence[str], missing: Mapping[str, Sequence[DeclaredTest]]
    ) -> dict[tuple[str, str], Baseline]:
        names = {test.name for tests in missing.values() for test in tests if test.settings.on_history}
        if self.accept or not names:
            return {}
        return results.baselines(self.current.store, self.tested, keys, names)

    @cached_property
    def _keys(self) -> tuple[str, ...]:
        if self.current.table not in PARTITIONED:
            return (ALL_PARTITIONS,)
        if self.current.partition_keys is not None:
            return self.current.partition_keys
        return tuple(partition_values(self.current.store, self.current.table, "partition_key"))

    def _of(self, key: str) -> list[DeclaredTest]:
        return [test for test in self.tests if self._settings(key, test).enabled]

    def _settings(self, key: str, test: DeclaredTest) -> Any:
        return test.settings if key == ALL_PARTITIONS else test.of_source(source_of(key))

    def _content(self, key: str, test: DeclaredTest) -> str:
        return ids.digest(self._files.get(key, ""), *(self._parents[name].get(key, "") for name in test.parents))

    @cached_property
    def _files(self) -> dict[str, str]:
        return file_digests(self.current)

    @cached_property
    def _parents(self) -> dict[str, dict[str, str]]:
        names = {name for test in self.tests for name in test.parents}
        return {name: file_digests(TableSlice.newest(self.current.store, name)) for name in names}


def file_digests(current: TableSlice) -> dict[str, str]:
    """Digest the files of each partition, of the slice's lane if it has one; a partition without files is left out."""
    actions = pa.table(current.open().get_add_actions(flatten=True))
    if current.lane is not None and current.table in LANES:
        actions = actions.filter(pc.equal(actions[f"partition.{LANES[current.table]}"], current.lane))
    paths = actions["path"].to_pylist()
    keys = [ALL_PARTITIONS] * len(paths)
    if current.table in PARTITIONED:
        keys = actions["partition.partition_key"].to_pylist() if paths else []
    listed: dict[str, list[str]] = {}
    for key, path in zip(keys, paths, strict=True):
        listed.setdefault(key, []).append(path)
    return {key: ids.digest(*sorted(files)) for key, files in listed.items()}


def newest_slice(store: Store, table: str, partition_keys: Sequence[str] | None = None) -> TableSlice:
    """Return the newest version of a table, whatever its partitions are."""
    return TableSlice.newest(store, table, partition_keys if table in PARTITIONED else None)
