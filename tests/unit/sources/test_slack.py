"""Slack exports: the same objects from a folder and from a ZIP, and damaged exports told apart from empty ones."""

import json
import pickle
import struct
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rag_core.config import SlackSource
from rag_core.errors import ObjectGoneError, SourceError
from rag_core.sources.base import Source, SourceObject
from rag_core.sources.factory import open_source

FILES: dict[str, Any] = {
    "users.json": [
        {"id": "U1", "name": "ann", "profile": {"display_name": "Ann", "real_name": "Ann Lee"}},
        {"id": "U2", "name": "bob", "profile": {"display_name": "", "real_name": "Bob Ray"}},
        {"id": "U3", "name": "unused"},
    ],
    "channels.json": [
        {"id": "C1", "name": "general", "topic": {"value": "All"}, "purpose": {"value": "Everyone"}},
        {"id": "C2", "name": "random"},
    ],
    "dms.json": [{"id": "D1", "members": ["U1", "U2"]}],
    "general/2023-04-13.json": [
        {"user": "U1", "text": "Hello <@U2>", "ts": "1", "reply_users": ["U2"]},
        {"user": "U9", "text": "x", "user_profile": {"display_name": "", "real_name": "Guest"}},
        {"bot_id": "B1", "username": "github", "text": "pushed"},
    ],
    "general/2023-04-14.json": [{"user": "U2", "text": "later"}],
    "D1/2023-04-13.json": [{"user": "U2", "text": "private"}],
    "random/canvas.json": [],
    "random/2023-13-45.json": [],
    "integration_logs.json": [],
}


def folder(path: Path, files: dict[str, Any] = FILES) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def zipped(path: Path, files: dict[str, Any] = FILES, prefix: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(prefix + name, content if isinstance(content, bytes) else json.dumps(content))
    return path


def source(root: Path, **settings: object) -> Source:
    return open_source(SlackSource(name="chat", kind="slack", root=root, **settings))


def listed(root: Path, **settings: object) -> dict[str, SourceObject]:
    return {item.key: item for item in source(root, **settings).list()}


@pytest.fixture(params=["folder", "zip", "zip in a folder"])
def export(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "folder":
        return folder(tmp_path / "export")
    return zipped(tmp_path / "export.zip", prefix="Our Team export/" if "in a" in request.param else "")


def test_one_object_per_channel_and_day(export: Path) -> None:
    items = listed(export)
    assert sorted(items) == ["D1/2023-04-13", "general/2023-04-13", "general/2023-04-14"]
    item = items["general/2023-04-14"]
    assert (item.format, item.source) == ("slack_day", "chat")
    assert item.modified_at == datetime(2023, 4, 14, tzinfo=UTC)
    assert item.uri.startswith(export.as_uri())
    assert sorted(listed(export, exclude=["D*/**"])) == ["general/2023-04-13", "general/2023-04-14"]


def test_content_has_channel_messages_and_the_users_they_name(export: Path) -> None:
    content = json.loads(source(export).read(listed(export)["general/2023-04-13"]))
    assert content["channel"] == {
        "id": "C1", "name": "general", "kind": "channel", "topic": "All", "purpose": "Everyone",
    }  # fmt: skip
    assert content["users"] == {"U1": "Ann", "U2": "Bob Ray", "U9": "Guest", "B1": "github"}
    assert content["date"] == "2023-04-13"
    assert content["messages"] == FILES["general/2023-04-13.json"]


def test_direct_messages_are_told_by_their_id(export: Path) -> None:
    content = json.loads(source(export).read(listed(export)["D1/2023-04-13"]))
    assert content["channel"] == {"id": "D1", "name": "D1", "kind": "direct_message", "topic": "", "purpose": ""}


@pytest.mark.parametrize("make", [folder, zipped])
def test_fingerprint_changes_with_day_users_and_channels_only(tmp_path: Path, make: Any) -> None:
    before = listed(make(tmp_path / "a", FILES))
    day = listed(make(tmp_path / "a", FILES | {"general/2023-04-14.json": [{"user": "U2", "text": "changed later"}]}))
    changed = {key for key in before if before[key].fingerprint != day[key].fingerprint}
    if make is zipped:
        assert changed == {"general/2023-04-14"}
    users = listed(make(tmp_path / "a", FILES | {"users.json": [{"id": "U1", "name": "renamed"}]}))
    assert all(users[key].fingerprint != day[key].fingerprint for key in day)


def test_same_zip_written_again_is_unchanged(tmp_path: Path) -> None:
    one, two = listed(zipped(tmp_path / "1.zip")), listed(zipped(tmp_path / "2.zip"))
    assert {key: item.fingerprint for key, item in one.items()} == {k: item.fingerprint for k, item in two.items()}


def test_replaced_export_is_read_anew(export: Path, tmp_path: Path) -> None:
    item = listed(export)["general/2023-04-14"]
    source(export).read(item)
    changed = FILES | {"users.json": [{"id": "U2", "name": "robert"}]}
    if export.is_dir():
        folder(export, changed)
    else:
        zipped(tmp_path / "new.zip", changed).replace(export)
    assert json.loads(source(export).read(item))["users"] == {"U2": "robert"}


def test_day_that_is_no_list_of_messages_is_left_to_the_parser(tmp_path: Path) -> None:
    for content in (b"not json", b'{"a": 1}', b"[1]"):
        root = zipped(tmp_path / "x.zip", FILES | {"general/2023-04-14.json": content})
        assert source(root).read(listed(root)["general/2023-04-14"]) == content


def test_no_export_at_the_root(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=f"no folder or ZIP file at {tmp_path}/none"):
        listed(tmp_path / "none")
    with pytest.raises(SourceError, match=r"no Slack export: it has no channels\.json"):
        listed(folder(tmp_path / "other", {"a/2023-04-13.json": []}))
    with pytest.raises(SourceError, match="no Slack export"):
        listed(zipped(tmp_path / "other.zip", {"readme.txt": b""}))


def test_day_that_is_gone(export: Path, tmp_path: Path) -> None:
    gone = SourceObject("chat", "general/2020-01-01", "", "", 0)
    with pytest.raises(ObjectGoneError, match="general/2020-01-01 is no longer in"):
        source(export).read(gone)


def test_not_a_zip_and_truncated_zip(tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(SourceError, match=r"text\.zip is not a readable ZIP file"):
        listed(tmp_path / "text.zip")
    whole = zipped(tmp_path / "a.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"cut\.zip is not a readable ZIP file"):
        listed(tmp_path / "cut.zip")


def test_damaged_member(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip")
    item = listed(path)["general/2023-04-13"]
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("general/2023-04-13.json").header_offset + 30 + len("general/2023-04-13.json")
    data = bytearray(path.read_bytes())
    data[start + 4 : start + 40] = b"\xff" * 36
    path.write_bytes(data)
    with pytest.raises(SourceError, match="cannot be unpacked"):
        source(path).read(item)


def test_unpacked_size_is_bounded_even_where_the_zip_lies(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", FILES | {"general/2023-04-15.json": b"[" + b" " * 5_000_000 + b"]"})
    item = listed(path)["general/2023-04-15"]
    with pytest.raises(SourceError, match=r"larger than max_bytes \(100000\)"):
        source(path, max_bytes=100_000).read(item)
    data = path.read_bytes().replace(struct.pack("<I", 5_000_002), struct.pack("<I", 100))
    path.write_bytes(data)
    with pytest.raises(SourceError):
        source(path, max_bytes=100_000).read(item)


def test_encrypted_zip(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip")
    item = listed(path)["general/2023-04-13"]
    data = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        position = data.find(signature)
        while position >= 0:
            data[position + flags] |= 1
            position = data.find(signature, position + 4)
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"cannot be unpacked: .*encrypted"):
        source(path).read(item)


def test_damaged_users_are_named(tmp_path: Path) -> None:
    root = zipped(tmp_path / "a.zip", FILES | {"users.json": b"{"})
    item = listed(root)["general/2023-04-13"]
    with pytest.raises(SourceError, match=r"users\.json in .*a\.zip is not a JSON list"):
        source(root).read(item)


def test_can_be_pickled(export: Path) -> None:
    original = source(export)
    items = list(original.list())
    again = pickle.loads(pickle.dumps(original))
    assert [again.read(item) for item in items] == [original.read(item) for item in items]


@pytest.mark.corpora
@pytest.mark.parametrize("name", ["slack-export", "slack-export.zip"])
def test_real_export(corpora: Path, name: str) -> None:
    items = listed(corpora / "mixed" / name)
    assert sorted(items) == ["example-channel/2023-04-13", "general/2023-04-13", "random/2023-04-13"]
    content = json.loads(source(corpora / "mixed" / name).read(items["general/2023-04-13"]))
    assert content["messages"][0]["text"] == "Hello, world!"
    assert content["users"] == {"U0500003428": "Example User"}
    assert content["channel"]["purpose"].startswith("This is the one channel")
