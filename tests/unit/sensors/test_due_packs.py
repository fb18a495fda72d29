"""Which runs a source's sensor asks for."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from rag_core.config_freshness import RunConfig
from rag_core.freshness.dirty import Dirty
from sensors.sources import due_packs

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
LIMITS = RunConfig(max_partitions_per_run=8, max_objects_per_run=1_000, concurrent_runs=2)


def dirty(number: int, objects: int, *, due_in_s: float | None = 0.0) -> Dirty:
    retry_at = None if due_in_s is None else NOW + timedelta(seconds=due_in_s)
    return Dirty(f"wiki__{number:03d}", objects, NOW, NOW, 1, 0, "", retry_at, stuck=False)


partitions = st.dictionaries(
    st.integers(0, 99), st.tuples(st.integers(1, 3_000), st.sampled_from([0.0, -5.0, 60.0, None])), max_size=60
).map(lambda found: [dirty(number, objects, due_in_s=due) for number, (objects, due) in found.items()])


@given(partitions, st.sets(st.integers(0, 99)), st.lists(st.integers(1, 3_000), max_size=3))
def test_only_what_is_due_and_not_under_way_and_no_more_than_there_are_places(found, flying, weights) -> None:
    in_flight = frozenset(f"wiki__{number:03d}" for number in flying)
    packs = due_packs(found, in_flight, weights, LIMITS, now=NOW)
    keys = [key for one in packs for key in one.partition_keys]
    due = {one.partition_key for one in found if one.is_due(NOW)} - in_flight
    assert len(keys) == len(set(keys))
    assert set(keys) <= due
    assert len(packs) <= max(0, LIMITS.concurrent_runs - len(weights))
    heavy = [weight for weight in (*weights, *(one.weight for one in packs)) if weight > 100]
    assert len(heavy) <= max(1, sum(weight > 100 for weight in weights))
    if due and not weights:
        assert packs


def test_fresh_change_has_its_place_beside_a_load_of_thousands() -> None:
    load = [dirty(number, 900) for number in range(8)]
    first, second = due_packs([*load, dirty(50, 1)], frozenset(), (), LIMITS, now=NOW)
    assert (first.partition_keys, first.weight) == (("wiki__050",), 1)
    assert second.weight == 900
    # the load goes on, one run at a time, and the place beside it stays free for what is light
    assert due_packs(load[1:], frozenset(load[0].partition_key), (900,), LIMITS, now=NOW) == []
    (fresh,) = due_packs([*load[1:], dirty(51, 3)], frozenset(), (900,), LIMITS, now=NOW)
    assert fresh.partition_keys == ("wiki__051",)


def test_burst_of_single_changes_is_one_run() -> None:
    packs = due_packs([dirty(number, 1) for number in range(0, 16, 2)], frozenset(), (), LIMITS, now=NOW)
    assert [len(one.partition_keys) for one in packs] == [8]


def test_what_failed_for_good_waits_for_a_change() -> None:
    assert due_packs([dirty(1, 1, due_in_s=None)], frozenset(), (), LIMITS, now=NOW) == []
