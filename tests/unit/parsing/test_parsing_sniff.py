"""Media types come from content; extensions only decide between kinds of text."""

import io
import zipfile

import pytest

from rag_core.parsing.charset import decode
from rag_core.parsing.sniff import DOCX, PDF, XLSX, ZIP, sniff_binary, sniff_text
from tests.unit.parsing.parsing_helpers import parse_one


def zipped(**members: bytes | str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_xml", ".xml"), content)
    return buffer.getvalue()


OFFICE = {"[Content_Types].xml": "<Types/>"}


@pytest.mark.parametrize(
    ("data", "name", "mime"),
    [
        (b"%PDF-1.7\n", "letter.txt", PDF),
        (b"junk before\n%PDF-1.4", "x", PDF),
        (b"\x89PNG\r\n\x1a\n....", "photo.docx", "image/png"),
        (zipped(**OFFICE, word__document_xml="x"), "x.zip", DOCX),
        (zipped(**OFFICE, xl__workbook_xml="x"), "x", XLSX),
        (zipped(mimetype="application/epub+zip"), "x", "application/epub+zip"),
        (zipped(a="1"), "report.docx", ZIP),
        (b"\x1f\x8b\x08", "x.txt", "application/gzip"),
        (b"just text", "x.pdf", None),
    ],
)
def test_binary_formats(data: bytes, name: str, mime: str | None) -> None:
    assert sniff_binary(data, name) == mime


@pytest.mark.parametrize(
    ("text", "name", "mime"),
    [
        ("<!DOCTYPE html><p>x", "a.txt", "text/html"),
        ("\n<?xml version='1.0'?>\n<!-- made by x -->\n<html>", "a.xml", "text/html"),
        (
            "From: a@b.c\nTo: d@e.f\nSubject: hi\nDate: Fri, 16 Dec 2022 17:04:16 -0500\n\nbody",
            "note.txt",
            "message/rfc822",
        ),
        ("a,b\n1,2\n", "a.csv", "text/csv"),
        ("a,b\n1,2\n", "a.txt", "text/plain"),
        ("# Title\n\ntext", "renamed.pdf", "text/markdown"),
        ("# Title\n\ntext", "README", "text/markdown"),
        ("plain words", "NOTES", "text/plain"),
        ('{"a": 1}\n{"a": 2}\n', "dump", "application/x-ndjson"),
        ('{"a": [1]}', "dump", "application/json"),
        ("# a comment\nimport os\n", "a.py", "text/x-python"),
        ("# a comment\nkey: value\n", "a.yaml", "text/plain"),
    ],
)
def test_text_kinds(text: str, name: str, mime: str) -> None:
    assert sniff_text(text, name) == mime


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Grüße, schöne Übung", "utf-8-sig"),
        ("Hamburgers are delicious", "utf-16"),
        ("Hamburgers are delicious", "utf-32"),
        ("Hamburgers are delicious", "utf-16-le"),
        ("Hamburgers are delicious", "utf-16-be"),
        ("Hamburgers are delicious", "utf-32-le"),
        ("Der Preis betrug 15,50 €, „können“ – naïve café", "cp1252"),
        ("## können\n\nkönnen\n\näöüß\n", "iso-8859-1"),
        ("モハメド・マッキンタイア,北海道,家具", "cp932"),
        ("これは日本語の文章です。", "euc_jp"),
        ("Привет мир, как дела сегодня, друзья мои дорогие", "cp1251"),
        ("你好世界这是一个测试文件内容很多", "gb18030"),
    ],
)
def test_charsets(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding)) == text


def test_a_declared_charset_decides_where_bytes_do_not() -> None:
    page = '<html><meta charset="iso-8859-2"><p>Zażółć gęślą jaźń'
    decoded = decode(page.encode("iso-8859-2"))
    assert decoded == page


def test_a_few_broken_bytes_leave_utf8_alone() -> None:
    text = "größer als 100 " * 40
    assert decode(text.encode() + b"\xff") == text + "\ufffd"


def test_binary_is_no_text() -> None:
    assert decode(bytes(range(256)) * 4) is None
    document = parse_one(bytes(range(1, 256)) * 4, "noise.txt")
    assert document.status == "rejected"
    assert "application/octet-stream is not supported" in (document.reason or "")


@pytest.mark.parametrize(
    ("data", "name", "status", "words"),
    [
        (b"", "a.pdf", "empty", "zero bytes"),
        (b" \n\t\n", "a.txt", "empty", "white space"),
        (b"%PDF-1.4\nrubbish", "a.pdf", "rejected", "damaged or truncated"),
        (zipped(**OFFICE, word__document_xml="x" * 5000)[:120], "a.docx", "rejected", "truncated"),
        (b"\x89PNG\r\n\x1a\n....", "a.png", "empty", "OCR"),
        (
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"),
            "a.xlsx",
            "rejected",
            "password",
        ),
        (b"\x7fELF....", "a", "rejected", "application/x-elf is not supported"),
        (b"-----BEGIN PGP MESSAGE-----\n\nabc=\n-----END PGP MESSAGE-----\n", "a.asc", "rejected", "PGP"),
    ],
)
def test_reasons_can_be_acted_on(data: bytes, name: str, status: str, words: str) -> None:
    document = parse_one(data, name)
    assert (document.status, document.text) == (status, "")
    assert words in (document.reason or "")


def test_too_large_says_size_and_limit() -> None:
    document = parse_one(b"x" * 2000, "a.txt", max_bytes=1000)
    assert document.status == "rejected"
    assert "2,000 bytes, the limit is 1,000" in (document.reason or "")
