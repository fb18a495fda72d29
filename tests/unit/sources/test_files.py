"""The folder source: what is listed, under which key, and what is refused."""

import os
import pickle
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_core.config import FilesSource
from rag_core.errors import ObjectGoneError, SourceError
from rag_core.sources.base import Source, SourceObject
from rag_core.sources.factory import open_source
from rag_core.sources.walking import key_of, path_of


def source(root: Path, **settings: object) -> Source:
    return open_source(FilesSource(name="handbook", kind="files", root=root, **settings))


def listed(root: Path, **settings: object) -> dict[str, SourceObject]:
    return {item.key: item for item in source(root, **settings).list()}


def put(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(name))


def test_lists_files_with_key_uri_fingerprint_and_time(tmp_path: Path) -> None:
    put(tmp_path, "a b/c#d.md")
    path = tmp_path / "a b" / "c#d.md"
    os.utime(path, ns=(0, 1_700_000_000_123_456_789))
    item = listed(tmp_path)["a b/c#d.md"]
    assert item.uri == path.as_uri()
    assert item.fingerprint == "10-1700000000123456789"
    assert item.size_bytes == 10
    assert item.modified_at is not None
    assert item.modified_at.replace(microsecond=0) == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert (item.format, item.source, item.locator, item.external_id) == ("file", "handbook", "", None)
    assert source(tmp_path).read(item) == b"a b/c#d.md"


def test_include_and_exclude(tmp_path: Path) -> None:
    put(tmp_path, "a.md", "b.txt", "docs/c.md", "docs/drafts/d.md", ".git/e.md", ".f.md", "~$g.md")
    assert sorted(listed(tmp_path)) == ["a.md", "b.txt", "docs/c.md", "docs/drafts/d.md"]
    assert sorted(listed(tmp_path, include=["**/*.md"], exclude=["**/drafts/**", "**/.*/**"])) == [
        ".f.md", "a.md", "docs/c.md", "~$g.md",
    ]  # fmt: skip


def test_missing_root_is_an_error_and_never_an_empty_listing(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=f"'handbook': there is no folder at {tmp_path}/none"):
        listed(tmp_path / "none")
    put(tmp_path, "file")
    with pytest.raises(SourceError, match="there is no folder"):
        listed(tmp_path / "file")


def test_root_that_goes_away_while_it_is_listed(tmp_path: Path) -> None:
    put(tmp_path, "root/a/1", "root/b/1")
    listing = source(tmp_path / "root").list()
    next(listing)
    (tmp_path / "root").rename(tmp_path / "moved")
    with pytest.raises(SourceError, match="went away"):
        list(listing)


def test_what_vanishes_while_listing_is_left_out(tmp_path: Path) -> None:
    put(tmp_path, "a/1", "b/1")
    listing = source(tmp_path).list()
    first = next(listing)
    other = "b" if first.key.startswith("a") else "a"
    (tmp_path / other / "1").unlink()
    (tmp_path / other).rmdir()
    assert list(listing) == []


def test_links_stay_inside_the_root_and_loops_end(tmp_path: Path) -> None:
    root = tmp_path / "root"
    put(tmp_path, "root/a/1.md", "secret.md", "outside/2.md")
    (root / "inside.md").symlink_to(root / "a" / "1.md")
    (root / "out.md").symlink_to(tmp_path / "secret.md")
    (root / "dir").symlink_to(tmp_path / "outside")
    (root / "a" / "loop").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    (root / "dangling").symlink_to(root / "nothing")
    assert sorted(listed(root)) == ["a/1.md", "inside.md"]
    for key in ("out.md", "dir/2.md"):
        item = SourceObject("handbook", key, "", "", 0)
        with pytest.raises(SourceError, match="leads out of"):
            source(root).read(item)


def test_root_may_be_a_link(tmp_path: Path) -> None:
    put(tmp_path, "real/a.md")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    item = listed(tmp_path / "link")["a.md"]
    assert source(tmp_path / "link").read(item) == b"real/a.md"


@pytest.mark.parametrize("key", ["../secret", "a/../../secret", "/etc/passwd", "a//b", "", ".", "%2E%2E/x", "a\0b"])
def test_keys_that_lead_out_are_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(SourceError):
        source(tmp_path).read(SourceObject("handbook", key, "", "", 0))


def test_only_regular_files_are_listed_and_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    assert listed(tmp_path) == {}
    for key in ("pipe", "folder"):
        with pytest.raises(SourceError):
            source(tmp_path).read(SourceObject("handbook", key, "", "", 0))


def test_read_is_bounded_and_tells_what_is_gone(tmp_path: Path) -> None:
    put(tmp_path, "a.md")
    item = listed(tmp_path)["a.md"]
    assert source(tmp_path, max_bytes=4).read(item) == b"a.md"
    with pytest.raises(SourceError, match=r"larger than max_bytes \(3\)"):
        source(tmp_path, max_bytes=3).read(item)
    (tmp_path / "a.md").unlink()
    with pytest.raises(ObjectGoneError, match="is gone"):
        source(tmp_path).read(item)


def test_large_objects_are_listed(tmp_path: Path) -> None:
    put(tmp_path, "a.md")
    assert list(listed(tmp_path, max_bytes=1)) == ["a.md"]


@contextmanager
def not_root() -> Iterator[None]:
    """Root reads every folder; be nobody meanwhile."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_unreadable_folder_is_named() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        put(Path(folder), "ok/a.md", "closed/b.md", "hidden/c.md")
        (Path(folder) / "closed").chmod(0)
        (Path(folder) / "hidden").chmod(0)
        with not_root(), pytest.raises(SourceError, match=f"the folder {folder}/closed cannot be read"):
            listed(Path(folder), exclude=["hidden/**"])
        with not_root():
            assert list(listed(Path(folder), exclude=["hidden/**", "closed/**"])) == ["ok/a.md"]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    name = b"caf\xe9 %41 100%.txt"
    Path(os.fsdecode(bytes(tmp_path) + b"/" + name)).write_bytes(b"x")
    (item,) = listed(tmp_path).values()
    assert item.key == "caf%E9 %2541 100%.txt"
    assert unquote_to_bytes(item.uri).endswith(name)
    assert source(tmp_path).read(item) == b"x"


@given(st.binary(min_size=1).filter(lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")))
def test_keys_are_valid_text_and_lead_back(name: bytes) -> None:
    key = key_of(os.fsdecode(name))
    key.encode("utf-8")
    assert os.fsencode(path_of(key)) == name


@pytest.mark.slow
@given(st.lists(st.text("%0aF\xe9\udcff", min_size=1), min_size=2, max_size=2, unique=True))
def test_different_names_have_different_keys(names: list[str]) -> None:
    assert key_of(names[0]) != key_of(names[1])


def test_can_be_pickled(tmp_path: Path) -> None:
    put(tmp_path, "a.md")
    again = pickle.loads(pickle.dumps(source(tmp_path)))
    assert [item.key for item in again.list()] == ["a.md"]


def paged(root: Path, page: int, *, afresh: bool, **settings: object) -> list[str]:
    """List in pages of so many files, each by the same reader or by one of its own; all keys in order."""
    reader, position, keys = source(root, **settings), None, []
    while True:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("rag_core.sources.files._PAGE_FILES", page)
            files, position = reader.list_page(position)
        keys += [file.key for file in files]
        if position is None:
            return keys
        reader = source(root, **settings) if afresh else pickle.loads(pickle.dumps(reader))


NAMES = st.text(st.sampled_from("abZ-.% 0é\udcff\U0010ffff"), min_size=1, max_size=3).filter(lambda n: set(n) != {"."})


@pytest.mark.slow
@given(st.sets(st.lists(NAMES, min_size=1, max_size=3).map("/".join), max_size=12), st.integers(1, 4), st.booleans())
def test_pages_give_what_one_listing_gives(names: set[str], page: int, afresh: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in sorted(names):
            with suppress(OSError):  # a file stands where a folder should be
                put(Path(folder), name)
        (Path(folder) / "empty" / "deeper").mkdir(parents=True, exist_ok=True)
        expected = sorted(listed(Path(folder), exclude=["a/**"]))
        assert sorted(paged(Path(folder), page, afresh=afresh, exclude=["a/**"])) == expected


def test_a_listing_goes_on_where_its_place_has_gone(tmp_path: Path) -> None:
    put(tmp_path, "a/1", "b/c/2", "b/c/3", "b/d/4", "e/5")
    reader = source(tmp_path)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("rag_core.sources.files._PAGE_FILES", 2)
        files, position = reader.list_page(None)
    assert [file.key for file in files] == ["a/1", "b/c/2"]
    shutil.rmtree(tmp_path / "b" / "c")
    files, position = source(tmp_path).list_page(position)
    assert [file.key for file in files] == ["b/d/4", "e/5"]
    assert position is None


def test_a_listing_does_not_go_on_in_another_folder(tmp_path: Path) -> None:
    root = tmp_path / "share"
    put(root, "1", "2", "3")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("rag_core.sources.files._PAGE_FILES", 1)
        _, position = source(root).list_page(None)
    root.rename(tmp_path / "unmounted")
    root.mkdir()
    with pytest.raises(SourceError, match="went away"):
        source(root).list_page(position)


def test_a_page_ends_after_its_time_even_where_no_file_is_admitted(tmp_path: Path) -> None:
    put(tmp_path, *(f"{folder}/x.txt" for folder in range(5)))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("rag_core.sources.files._PAGE_S", -1.0)
        files, position = source(tmp_path, include=["**/*.md"]).list_page(None)
    assert (files, position is None) == ([], False)
