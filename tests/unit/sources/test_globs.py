"""Globs over keys: `**` crosses folders, nothing else does."""

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_core.config import FilesSource
from rag_core.sources.globs import KeyFilter


@pytest.mark.parametrize(
    ("pattern", "matches", "misses"),
    [
        ("**/*", ["a", "a/b", "a/b/c.md", ".x"], []),
        ("*", ["a", "a.md"], ["a/b"]),
        ("*.md", ["a.md", ".md"], ["a/b.md", "a.mdx", "aXmd"]),
        ("**/*.md", ["a.md", "a/b.md", "a/b/c.md"], ["a.txt", "a.md/b"]),
        ("docs/**", ["docs/a", "docs/a/b"], ["docs", "docs2/a", "x/docs/a"]),
        ("docs/**/*.md", ["docs/a.md", "docs/x/y/a.md"], ["docs.md", "docsx/a.md"]),
        ("**/draft/**", ["draft/a", "x/draft/a/b"], ["draft", "x/draft", "x/drafts/a"]),
        ("**", ["a", "a/b"], []),
        ("a?c", ["abc", "a.c"], ["a/c", "ac", "abbc"]),
        ("[ab].md", ["a.md", "b.md"], ["c.md", "ab.md"]),
        ("[!ab].md", ["c.md"], ["a.md", "/.md"]),
        ("[a-c]x", ["bx"], ["dx"]),
        ("[", ["["], ["a"]),
        ("[]]", ["]"], ["a"]),
        ("[^a]", ["^", "a"], ["b"]),
        ("a+(b).md", ["a+(b).md"], ["aab.md"]),
        ("a**b", ["ab", "axxb"], ["a/b"]),
        ("*.md", ["a\nb.md"], []),
    ],
)
def test_matches(pattern: str, matches: list[str], misses: list[str]) -> None:
    keys = KeyFilter([pattern], [])
    assert [key for key in matches if not keys.admits(key)] == []
    assert [key for key in misses if keys.admits(key)] == []


def test_defaults_leave_out_hidden_and_lock_files() -> None:
    config = FilesSource(name="a", kind="files", root="/")
    keys = KeyFilter(config.include, config.exclude)
    assert keys.admits("a/b.md")
    assert not any(
        map(keys.admits, [".hidden", "a/.hidden", ".git/config", "a/.git/x/y", "~$report.docx", "a/~$b.docx"])
    )
    assert keys.prunes(".git")
    assert keys.prunes("a/.git")
    assert not keys.prunes("a")


def test_no_include_admits_nothing_and_exclude_wins() -> None:
    assert not KeyFilter([], []).admits("a")
    assert not KeyFilter(["**"], ["a"]).admits("a")


@given(st.lists(st.sampled_from(["**", "*", "a", "b", "a*", "?"]), min_size=1, max_size=4), st.data())
def test_recursive_globs_match_segment_by_segment(pattern: list[str], data: st.DataObject) -> None:
    """The translation agrees with a matcher that walks the segments."""
    key = data.draw(st.lists(st.sampled_from(["a", "b", "ab", "cc"]), min_size=1, max_size=4))
    assert KeyFilter(["/".join(pattern)], []).admits("/".join(key)) == _by_segments(pattern, key)


def _by_segments(pattern: list[str], key: list[str]) -> bool:
    if not pattern or pattern == ["**"]:
        return bool(key) == bool(pattern)
    if pattern[0] == "**":
        return any(_by_segments(pattern[1:], key[start:]) for start in range(len(key) + 1))
    return bool(key) and PurePosixPath(key[0]).match(pattern[0]) and _by_segments(pattern[1:], key[1:])


@pytest.mark.slow
@given(st.lists(st.sampled_from(["**", "*", "a", "b"]), min_size=1, max_size=3), st.data())
def test_nothing_below_a_pruned_folder_is_admitted(pattern: list[str], data: st.DataObject) -> None:
    folder = data.draw(st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=3))
    below = data.draw(st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=2))
    keys = KeyFilter(["**"], ["/".join([*pattern, "**"])])
    if keys.prunes("/".join(folder)):
        assert not keys.admits("/".join(folder + below))
