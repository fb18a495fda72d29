"""The gate between stages: lets the partitions through whose blocking tests passed."""

from dataclasses import dataclass

from rag_core.config import RagConfig
from rag_core.quality.loading import load_declarations
from rag_core.quality.running import run_tests
from rag_core.tables.delta import TableSlice


@dataclass(frozen=True)
class Gate:
    """What a stage may read.

    Attributes:
        passed: Partitions whose blocking tests passed, in the order of the slice.
        held: Partition -> why it is held back, a sentence for each failed test.
    """

    passed: tuple[str, ...]
    held: dict[str, tuple[str, ...]]


def gate(slice: TableSlice, config: RagConfig, *, run_id: str) -> Gate:
    """Run the blocking tests of the slice's partitions, or take what they found for the same content.

    Args:
        slice: What a stage is about to read. Its version is tested, not a newer one.
        config: As for `run_tests`.
        run_id: Kept with the results.

    Raises:
        ConfigError: A declaration is wrong.
    """
    declared = load_declarations(config).get(slice.table)
    blocking = [test.name for test in declared.tests if test.blocking] if declared is not None else []
    results = run_tests(slice, config, run_id=run_id, tests=blocking) if blocking else []
    held: dict[str, tuple[str, ...]] = {}
    for result in results:
        if result.holds_back:
            held[result.partition_key] = (*held.get(result.partition_key, ()), result.reason)
    keys = slice.partition_keys
    if keys is None:
        keys = tuple(dict.fromkeys(result.partition_key for result in results))
    return Gate(tuple(key for key in keys if key not in held), held)
