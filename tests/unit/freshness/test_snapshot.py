from datetime import UTC, datetime

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rag_core import ids
from rag_core.freshness.snapshot import (
    NO_TIME,
    Snapshot,
    buckets_of,
    from_us,
    ids_from_hex,
    ids_of,
    ids_to_hex,
    locate,
    states_of,
    to_us,
)

# Ids that begin and end alike, and with zero bytes: what a fixed-width text type might confuse.
HEX = st.sampled_from([f"{first:02x}{'00' * 13}{last:04x}" for first in (0, 1) for last in (0, 1, 256, 512)])


@given(st.lists(st.text(max_size=5)), st.integers(1, 1000))
def test_ids_and_buckets_are_those_of_the_tables(keys: list[str], buckets: int) -> None:
    found = ids_of("handbook", keys)
    names = [ids.doc_id("handbook", key) for key in keys]
    assert ids_to_hex(found) == names
    assert buckets_of(found, buckets).tolist() == [ids.bucket_of(name, buckets) for name in names]
    assert (ids_from_hex(names) == found).all()


@given(st.dictionaries(HEX, st.integers(0, 3)), st.sets(HEX), st.dictionaries(HEX, st.integers(0, 3)))
def test_snapshot_changes_like_a_dictionary(before: dict[str, int], gone: set[str], new: dict[str, int]) -> None:
    snapshot = Snapshot.empty().changed(np.empty(0, np.bool_), ids_from_hex(before), _states(before))
    assert _as_dict(snapshot) == before
    keep = np.array([name not in gone for name in ids_to_hex(snapshot.object_ids)], np.bool_)
    changed = snapshot.changed(keep, ids_from_hex(new), _states(new))
    assert _as_dict(changed) == {key: state for key, state in before.items() if key not in gone} | new
    assert ids_to_hex(changed.object_ids) == sorted(ids_to_hex(changed.object_ids))
    assert _as_dict(snapshot) == before


@given(st.sets(HEX), st.lists(HEX))
def test_locate(there: set[str], wanted: list[str]) -> None:
    ordered = sorted(there)
    places, found = locate(ids_from_hex(ordered), ids_from_hex(wanted))
    assert found.tolist() == [name in there for name in wanted]
    assert [ordered[place] for place, hit in zip(places, found, strict=True) if hit] == [
        name for name in wanted if name in there
    ]


def test_states_tell_fingerprints_apart() -> None:
    one, two, again = states_of(["10-1700000000123456789", "10-1700000000123456790", "10-1700000000123456789"]).tolist()
    assert one == again != two


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_are_exact(time: datetime) -> None:
    assert from_us(to_us(time)) == time
    assert (to_us(None), from_us(NO_TIME)) == (NO_TIME, None)


def test_counts_by_bucket() -> None:
    keys = [f"{number}.md" for number in range(50)]
    snapshot = Snapshot.empty().changed(np.empty(0, np.bool_), ids_of("handbook", keys), states_of(keys))
    expected = [ids.bucket_of(ids.doc_id("handbook", key), 8) for key in keys]
    assert snapshot.counts(8) == [expected.count(bucket) for bucket in range(8)]


def _states(states: dict[str, int]) -> np.ndarray:
    return np.array(list(states.values()), np.uint64)


def _as_dict(snapshot: Snapshot) -> dict[str, int]:
    return dict(zip(ids_to_hex(snapshot.object_ids), snapshot.states.tolist(), strict=True))
