"""The diff of a listing: applying it to what was seen gives the listing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_core.sources.base import SourceObject
from rag_core.sources.diff import SeenObject, diff

PARSER = "p1"


def item(key: str, fingerprint: str) -> SourceObject:
    return SourceObject(source="s", key=key, uri=f"file:///{key}", fingerprint=fingerprint, size_bytes=1)


def seen(fingerprint: str, parser: str = PARSER) -> SeenObject:
    return SeenObject(fingerprint, "hash", parser)


keys = st.sampled_from("abcdefgh")
fingerprints = st.sampled_from(["1", "2", "3", "4", "5"])
listings = st.dictionaries(keys, fingerprints).map(lambda found: [item(key, found[key]) for key in found])
memories = st.dictionaries(keys, st.builds(seen, fingerprints, st.sampled_from([PARSER, "p0"])))


@given(listings, memories)
def test_applying_the_diff_to_what_was_seen_gives_the_listing(
    listing: list[SourceObject], before: dict[str, SeenObject]
) -> None:
    found = diff(listing, before, parser_fingerprint=PARSER)
    after = {key: known for key, known in before.items() if key not in found.deleted}
    after |= {entry.key: seen(entry.fingerprint) for entry in (*found.new, *found.changed)}
    assert after == {entry.key: seen(entry.fingerprint) for entry in listing}
    assert found.unchanged + len(found.new) + len(found.changed) == len(listing)
    assert set(found.deleted) <= before.keys()
    assert not {entry.key for entry in found.new} & before.keys()
    assert {entry.key for entry in found.changed} <= before.keys()
    again = diff(listing, after, parser_fingerprint=PARSER)
    assert again.is_empty
    assert again.unchanged == len(listing)
    assert again.renamed == ()


@pytest.mark.slow
@given(listings, memories)
def test_renames_are_pairs_of_one_deleted_and_one_new_object(
    listing: list[SourceObject], before: dict[str, SeenObject]
) -> None:
    found = diff(listing, before, parser_fingerprint=PARSER)
    new = {entry.key: entry.fingerprint for entry in found.new}
    assert {old for old, _ in found.renamed} <= set(found.deleted)
    assert {key for _, key in found.renamed} <= new.keys()
    for old, key in found.renamed:
        fingerprint = before[old].fingerprint
        assert new[key] == fingerprint
        assert [k for k in new if new[k] == fingerprint] == [key]
        assert [k for k in found.deleted if before[k].fingerprint == fingerprint] == [old]


def test_kinds_of_change() -> None:
    before = {"same": seen("1"), "edited": seen("1"), "moved": seen("7"), "old parser": seen("1", "p0")}
    listing = [item("same", "1"), item("edited", "2"), item("now here", "7"), item("old parser", "1"), item("new", "9")]
    found = diff(listing, before, parser_fingerprint=PARSER)
    assert [entry.key for entry in found.new] == ["now here", "new"]
    assert [entry.key for entry in found.changed] == ["edited", "old parser"]
    assert found.deleted == ("moved",)
    assert found.unchanged == 1
    assert found.renamed == (("moved", "now here"),)
    assert not found.is_empty


def test_ambiguous_renames_are_not_reported() -> None:
    found = diff([item("c", "1"), item("d", "1")], {"a": seen("1")}, parser_fingerprint=PARSER)
    assert found.renamed == ()
    found = diff([item("c", "1")], {"a": seen("1"), "b": seen("1")}, parser_fingerprint=PARSER)
    assert found.renamed == ()


def test_keys_listed_twice_are_an_error() -> None:
    with pytest.raises(ValueError, match="source 's' lists 'a' twice"):
        diff([item("a", "1"), item("a", "1")], {}, parser_fingerprint=PARSER)
