"""Packing of partitions into runs."""

import math

from hypothesis import given
from hypothesis import strategies as st

from rag_core.packing import Item, Pack, pack

items = st.dictionaries(
    st.integers(0, 999).map(lambda number: f"handbook__{number:03d}"), st.integers(1, 5_000), max_size=120
).map(lambda weights: [Item(key, weight) for key, weight in weights.items()])


@given(items, st.integers(1, 40), st.integers(1, 2_000), st.randoms())
def test_every_partition_is_in_one_run_of_bounded_size(given_items, max_items, max_weight, random) -> None:
    packs = pack(given_items, max_items=max_items, max_weight=max_weight)
    keys = [key for one in packs for key in one.partition_keys]
    assert sorted(keys) == sorted(item.partition_key for item in given_items)
    weights = {item.partition_key: item.weight for item in given_items}
    for one in packs:
        assert one.partition_keys == tuple(sorted(one.partition_keys))
        assert one.weight == sum(weights[key] for key in one.partition_keys)
        assert len(one.partition_keys) <= max_items
        assert one.weight <= max_weight or len(one.partition_keys) == 1
    shuffled = list(given_items)
    random.shuffle(shuffled)
    assert pack(shuffled, max_items=max_items, max_weight=max_weight) == packs


@given(st.integers(1, 300), st.integers(1, 40))
def test_equal_partitions_make_as_few_runs_as_can_be_and_no_run_is_much_larger(count, max_items) -> None:
    packs = pack([Item(f"k{number:03d}") for number in range(count)], max_items=max_items, max_weight=10_000)
    sizes = [len(one.partition_keys) for one in packs]
    assert len(packs) == math.ceil(count / max_items)
    assert max(sizes) - min(sizes) <= 1


def test_lightest_run_is_first() -> None:
    packs = pack([Item("a", 900), Item("b", 3), Item("c", 2_000)], max_items=8, max_weight=900)
    assert packs == [Pack(("b",), 3), Pack(("a",), 900), Pack(("c",), 2_000)]
