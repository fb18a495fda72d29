"""JSON Lines: stable unique keys, exact slices, and lines that are not what they should be."""

import json
import pickle
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_core.config import JsonlSource
from rag_core.errors import ObjectGoneError, SourceError
from rag_core.sources.base import Source, SourceObject
from rag_core.sources.factory import open_source


def source(root: Path, **settings: object) -> Source:
    return open_source(JsonlSource(name="tickets", kind="jsonl", root=root, **settings))


def write(path: Path, *records: object) -> Path:
    path.write_bytes(b"".join((r if isinstance(r, bytes) else json.dumps(r).encode()) + b"\n" for r in records))
    return path


def listed(root: Path, **settings: object) -> list[SourceObject]:
    return list(source(root, **settings).list())


def test_records_have_key_uri_id_and_slice(tmp_path: Path) -> None:
    path = write(tmp_path / "docs.jsonl", {"_id": "a b", "text": "é"}, {"_id": 7, "text": "two"})
    first, second = listed(path)
    assert (first.key, first.external_id, first.format) == ("docs.jsonl#a b", "a b", "jsonl_record")
    assert first.uri == path.as_uri() + "#a%20b"
    assert (second.key, second.external_id) == ("docs.jsonl#7", "7")
    assert first.modified_at is None
    assert first.locator == f"docs.jsonl:0:{first.size_bytes}"
    assert json.loads(source(path).read(first))["text"] == "é"
    assert json.loads(source(path).read(second))["text"] == "two"


def test_folder_lists_only_records_files_that_globs_admit(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for name in ("a.jsonl", "x/b.ndjson", "x/c.JSONL", "d.json", "e.jsonl.bak", ".f.jsonl", "x/skip.jsonl"):
        write(tmp_path / name, {"_id": "1"})
    items = listed(tmp_path, exclude=["**/.*", "**/skip*"])
    assert sorted(item.key for item in items) == ["a.jsonl#1", "x/b.ndjson#1", "x/c.JSONL#1"]
    assert all(source(tmp_path).read(item) for item in items)


def test_missing_root(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=f"there is no file or folder at {tmp_path}/none"):
        listed(tmp_path / "none")


def test_blank_lines_line_ends_and_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"_id":"1"}\r\n\r\n  \n\t{"_id":"2"}\n\n{"_id":"3"}')
    items = listed(path)
    assert [item.external_id for item in items] == ["1", "2", "3"]
    assert [source(path).read(item) for item in items] == [b'{"_id":"1"}', b'\t{"_id":"2"}', b'{"_id":"3"}']


def test_missing_and_repeated_ids_fall_back_on_content(tmp_path: Path) -> None:
    lines = [
        {"_id": "a"},
        {"_id": "a", "n": 1},
        {"n": 2},
        {"n": 2},
        {"n": 2},
        {"_id": None},
        {"_id": True},
        {"_id": ""},
    ]
    items = listed(write(tmp_path / "a.jsonl", *lines))
    keys = [item.key.partition("#")[2] for item in items]
    assert keys[0] == "a"
    assert keys[1] == f"line-{items[1].fingerprint}"
    assert items[1].external_id == "a"
    assert keys[2:5] == [f"line-{items[2].fingerprint}{end}" for end in ("", "-2", "-3")]
    assert [item.external_id for item in items[2:]] == [None] * 6
    assert len(set(keys)) == len(keys)


def test_ids_that_look_like_fallbacks_do_not_collide(tmp_path: Path) -> None:
    fallback = listed(write(tmp_path / "a.jsonl", {"n": 1}))[0].key.partition("#")[2]
    items = listed(write(tmp_path / "a.jsonl", {"_id": fallback}, {"n": 1}, {"n": 1}))
    assert [item.key.partition("#")[2] for item in items] == [fallback, f"{fallback}-2", f"{fallback}-3"]


def test_keys_do_not_move_when_other_lines_come_and_go(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    before = {item.key: item.fingerprint for item in listed(write(path, {"_id": "1"}, {"n": 1}, {"_id": "2"}))}
    after = {item.key: item.fingerprint for item in listed(write(path, {"_id": "9"}, {"_id": "2"}, {"n": 1}))}
    assert {key: after[key] for key in before.keys() & after.keys()} == {
        key: fingerprint for key, fingerprint in before.items() if not key.endswith("#1")
    }


@pytest.mark.parametrize("line", [b"not json", b'{"_id": "x"', b'["_id"]', b'{"_id": "\xff"}', b"12"])
def test_lines_that_are_no_records_are_listed_for_the_parser_to_reject(tmp_path: Path, line: bytes) -> None:
    path = write(tmp_path / "a.jsonl", line)
    (item,) = listed(path)
    assert item.external_id is None
    assert source(path).read(item) == line


def test_long_lines_are_listed_but_not_read(tmp_path: Path) -> None:
    long = {"_id": "long", "text": "x" * 3_000_000}
    path = write(tmp_path / "a.jsonl", {"_id": "1"}, long, {"_id": "2"})
    first, second, third = listed(path, max_bytes=100)
    assert (first.external_id, second.external_id, third.external_id) == ("1", None, "2")
    assert second.size_bytes > 3_000_000
    with pytest.raises(SourceError, match=r"larger than max_bytes \(100\)"):
        source(path, max_bytes=100).read(second)
    assert source(path, max_bytes=100).read(third) == b'{"_id": "2"}'
    assert second.fingerprint == listed(path, max_bytes=100)[1].fingerprint


def test_line_of_exactly_the_limit_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b"x" * 10, b"y" * 11, b"z" * 12)
    items = listed(path, max_bytes=10)
    assert [item.size_bytes for item in items if item.size_bytes <= 10] == [10]
    assert source(path, max_bytes=10).read(items[0]) == b"x" * 10
    assert len(items) == 3


def test_reading_from_a_file_that_changed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"_id": "1", "n": 1}, {"_id": "2"})
    items = listed(path)
    write(path, {"_id": "1", "n": 2}, {"_id": "2"})
    with pytest.raises(ObjectGoneError, match=r"changed since a\.jsonl#1 was listed"):
        source(path).read(items[0])
    assert source(path).read(items[1]) == b'{"_id": "2"}'
    path.unlink()
    with pytest.raises(ObjectGoneError):
        source(path).read(items[1])


def test_modified_at_is_read_where_configured(tmp_path: Path) -> None:
    times = ["2024-05-01T10:00:00+02:00", "2024-05-01", "2024-05-01T08:00:00Z", "yesterday", 5, None]
    path = write(tmp_path / "a.jsonl", *({"_id": str(n), "at": time} for n, time in enumerate(times)))
    found = [item.modified_at for item in listed(path, modified_at_field="at")]
    eight = datetime(2024, 5, 1, 8, tzinfo=UTC)
    assert found == [eight, datetime(2024, 5, 1, tzinfo=UTC), eight, None, None, None]
    assert all(time is None or time.utcoffset() == eight.utcoffset() for time in found)


def test_file_names_with_separators_in_them(tmp_path: Path) -> None:
    write(tmp_path / "a:b#c.jsonl", {"_id": "x:1"})
    (item,) = listed(tmp_path)
    assert source(tmp_path).read(item) == b'{"_id": "x:1"}'


def test_can_be_pickled(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"_id": "1"})
    assert len(list(pickle.loads(pickle.dumps(source(path))).list())) == 1


@given(
    st.lists(
        st.one_of(st.binary(max_size=12).filter(lambda b: b"\n" not in b), st.sampled_from([b'{"_id":1}', b"{}"]))
    ),
    st.integers(min_value=1, max_value=12),
)
def test_every_line_is_listed_once_and_read_as_it_stands(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], max_bytes: int
) -> None:
    path = tmp_path_factory.mktemp("x") / "a.jsonl"
    path.write_bytes(b"\n".join(lines))
    items = listed(path, max_bytes=max_bytes)
    assert len({item.key for item in items}) == len(items)
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    wanted = [line.rstrip(b"\r\n") for line in content]
    short = [line for line in wanted if line.strip() and len(line) <= max_bytes]
    read = [source(path, max_bytes=max_bytes).read(item) for item in items if item.size_bytes <= max_bytes]
    assert read == short


@pytest.mark.corpora
def test_cranfield(corpora: Path) -> None:
    items = listed(corpora / "cranfield" / "docs.jsonl")
    assert [item.external_id for item in items] == [str(number) for number in range(1, 1401)]
