"""What a cache holds is a result, or is said to be none: nothing else comes of it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_core.retrieval.search import Hit
from serving.retrieval import codec
from serving.retrieval.query import Found, Passage

HIT = Hit(
    chunk_id="c", doc_id="d", external_id=None, uri="file:///d", title="Title", heading_path=("A", "B"), page=2,
    char_start=3, char_end=8, ordinal=1, score=0.5, text="valve", source="s", mime="text/plain", language="en",
    modified_at_ms=7,
)  # fmt: skip
EXPLAIN = {"dense": {"rank": 1, "score": 0.5}, "rerank": "failed"}
FOUND = Found((Passage(HIT, "a valve", (1, 8), 2, EXPLAIN),), "rag_blue", "v", {"reasons": []}, {"embed": 0.1})
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def values() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(codec.to_bytes(FOUND))
    return read


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return where a value, or one inside it, can be replaced; what a search says of itself may be anything."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    free = path[-1:] in (("explain",), ("effort",))
    return [path] + ([] if free else [found for name, one in inner for found in paths(one, (*path, name))])


def is_whole(found: Found) -> bool:
    """Whether all parts of a result are of the types that its readers expect."""
    return all(
        isinstance(one, Passage)
        and isinstance(one.hit, Hit)
        and isinstance(one.hit.heading_path, tuple)
        and isinstance(one.hit.chunk_id, str)
        and isinstance(one.hit.score, float)
        and [type(place) for place in one.span] == [int, int]
        for one in found.passages
    ) and isinstance(found.collection, str)


@given(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
def test_garbage_is_an_error_of_value(data: bytes) -> None:
    with pytest.raises(ValueError):
        codec.from_bytes(data)


@given(st.data())
def test_what_another_program_wrote_is_read_in_whole_or_not_at_all(data: st.DataObject) -> None:
    changed = {"root": values()}
    path = ("root", *data.draw(st.sampled_from(paths(changed["root"]))))
    place: Any = changed
    for name in path[:-1]:
        place = place[name]
    if isinstance(place, dict) and len(path) > 1 and data.draw(st.booleans()):
        del place[path[-1]]
    else:
        place[path[-1]] = data.draw(json_values)
    try:
        found = codec.from_bytes(json.dumps(changed["root"]).encode())
    except ValueError:
        return
    assert is_whole(found)


@pytest.mark.parametrize("data", [b"null", b"1", b'"x"', b'{"passages": [1]}', b'{"passages": null}'])
def test_json_that_is_no_result(data: bytes) -> None:
    with pytest.raises(ValueError, match="Found"):
        codec.from_bytes(data)


def test_a_score_that_is_no_number_does_not_come_back() -> None:
    broken = values()
    broken["passages"][0]["hit"]["score"] = None  # JSON has no NaN
    with pytest.raises(ValueError, match="score"):
        codec.from_bytes(json.dumps(broken).encode())


def test_what_was_cut_short_is_no_result() -> None:
    data = codec.to_bytes(FOUND)
    for length in range(len(data)):
        with pytest.raises(ValueError):
            codec.from_bytes(data[:length])
