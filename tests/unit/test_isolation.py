"""Partitions that fail do not stop the others."""

import math

from hypothesis import given
from hypothesis import strategies as st

from rag_core.errors import SourceError, TransientError
from rag_core.isolation import isolated


@given(st.integers(1, 64), st.data())
def test_all_but_the_bad_are_done(count, data) -> None:
    keys = [f"handbook__{number:02d}" for number in range(count)]
    bad = data.draw(st.sets(st.sampled_from(keys), max_size=2))
    tries: list[tuple[str, ...]] = []

    def work(some: tuple[str, ...]) -> int:
        tries.append(some)
        if found := bad.intersection(some):
            raise TransientError(f"{sorted(found)} cannot be done")
        return len(some)

    outcome = isolated(keys, work)
    assert set(outcome.failures) == bad
    done = [key for some, result in outcome.results for key in some if result == len(some)]
    assert sorted([*done, *bad]) == keys
    assert len(tries) <= 1 + 2 * len(bad) * math.ceil(math.log2(max(2, count)))


def test_what_is_wrong_with_everything_is_given_up_early() -> None:
    tries = 0

    def work(_some: tuple[str, ...]) -> None:
        nonlocal tries
        tries += 1
        raise TransientError("Milvus does not answer")

    keys = [f"k{number:02d}" for number in range(64)]
    assert set(isolated(keys, work).failures) == set(keys)
    assert tries <= 6 + 3 + 2


def test_source_that_cannot_be_listed_is_tried_once() -> None:
    tries = 0

    def work(_some: tuple[str, ...]) -> None:
        nonlocal tries
        tries += 1
        raise SourceError("there is no folder at /srv/handbook")

    outcome = isolated(["a", "b", "c"], work)
    assert set(outcome.failures) == {"a", "b", "c"}
    assert tries == 1


def test_one_that_fails_once_is_done_in_the_second_try() -> None:
    failed = False

    def work(some: tuple[str, ...]) -> tuple[str, ...]:
        nonlocal failed
        if "b" in some and not failed:
            failed = True
            raise TransientError("once")
        return some

    outcome = isolated(["a", "b", "c", "d"], work)
    assert not outcome.failures
