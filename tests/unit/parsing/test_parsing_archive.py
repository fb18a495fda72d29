"""ZIP archives: a section per member, and bounds that hold against what headers claim."""

import io
import zipfile

from tests.unit.parsing.parsing_helpers import parse_one


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_members_become_sections_and_unreadable_ones_are_named() -> None:
    data = zipped(
        {
            "docs/a.md": b"# Title\n\ntext\n\n```\n# comment\n```\n",
            "b.csv": b"x,y\n1,2\n",
            "bad.pdf": b"%PDF-1.4 cut",
            "none.txt": b"",
            "__MACOSX/._a.md": b"\x00\x05",
        }
    )
    document = parse_one(data, "bundle.zip")
    assert document.text.startswith(
        "## docs/a.md\n\n### Title\n\ntext\n\n```\n# comment\n```\n\n"
        "## b.csv\n\n| x | y |\n| --- | --- |\n| 1 | 2 |\n\n"
        "## Members that could not be read\n\n- bad.pdf: The document is damaged"
    )
    assert (document.title, document.mime, document.status) == ("bundle", "application/zip", "ok")


def test_a_bomb_is_refused_by_what_comes_out_whatever_its_header_says() -> None:
    data = bytearray(zipped({"zeros.txt": b"0" * 3_000_000}))
    central = data.rfind(b"PK\x01\x02")
    data[central + 24 : central + 28] = (1000).to_bytes(4, "little")  # claims to unpack to 1,000 bytes
    for lying in (bytes(data), zipped({"zeros.txt": b"0" * 3_000_000})):
        document = parse_one(lying, "bomb.zip", archive={"max_total_bytes": 1_000_000})
        assert document.text == ""
        assert document.status in {"rejected", "empty"}
        assert document.reason
    assert "unpacks to more than 1000000 bytes" in (document.reason or "")


def test_entries_and_depth_are_bounded_for_the_whole() -> None:
    many = zipped({f"{i}.txt": b"x" for i in range(30)})
    assert "more than 20 entries" in (parse_one(many, "a.zip", archive={"max_entries": 20}).reason or "")
    nested = zipped({"in.zip": zipped({"in.zip": zipped({"a.txt": b"deep"})})})
    document = parse_one(nested, "a.zip")
    assert (document.status, "nested more than 2 deep" in (document.reason or "")) == ("rejected", True)
    assert "deep" in parse_one(nested, "a.zip", archive={"max_depth": 3}).text


def test_bytes_are_counted_over_all_inner_archives() -> None:
    inner = {f"{i}.zip": zipped({"a.txt": b"0" * 400_000}) for i in range(4)}
    document = parse_one(zipped(inner), "a.zip", archive={"max_total_bytes": 1_000_000})
    assert (document.status, document.text) == ("rejected", "")


def test_an_archive_without_text_is_empty() -> None:
    document = parse_one(zipped({"a.png": b"\x89PNG\r\n\x1a\n"}), "a.zip")
    assert document.status == "empty"
