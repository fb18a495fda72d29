"""Telling a file's media type from its content; the extension only decides between kinds of text."""

import io
import mimetypes
import re
import zipfile
from pathlib import PurePosixPath
from typing import Final

from rag_core.parsing.model import UnreadableError

EMPTY: Final = "application/x-empty"
BINARY: Final = "application/octet-stream"
PDF: Final = "application/pdf"
ZIP: Final = "application/zip"
_OOXML: Final = "application/vnd.openxmlformats-officedocument."
DOCX: Final = _OOXML + "wordprocessingml.document"
PPTX: Final = _OOXML + "presentationml.presentation"
XLSX: Final = _OOXML + "spreadsheetml.sheet"
EPUB: Final = "application/epub+zip"
_ODF: Final = "application/vnd.oasis.opendocument."

_MAGIC: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"\x00\x00\x01\x00", "image/vnd.microsoft.icon"),
    (b"\x1f\x8b", "application/gzip"),
    (b"BZh", "application/x-bzip2"),
    (b"\xfd7zXZ\x00", "application/x-xz"),
    (b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (b"Rar!\x1a\x07", "application/vnd.rar"),
    (b"\x28\xb5\x2f\xfd", "application/zstd"),
    (b"\x7fELF", "application/x-elf"),
    (b"SQLite format 3\x00", "application/vnd.sqlite3"),
    (b"PAR1", "application/vnd.apache.parquet"),
    (b"ID3", "audio/mpeg"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
    (b"\x1aE\xdf\xa3", "video/x-matroska"),
    (b"wOFF", "font/woff"),
    (b"wOF2", "font/woff2"),
    (b"\xca\xfe\xba\xbe", "application/java-vm"),
)
_RIFF: Final = {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}
OLE: Final = "application/x-ole-storage"
_OLE: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_OLE_STREAMS: Final = (
    ("WordDocument", "application/msword"),
    ("PowerPoint Document", "application/vnd.ms-powerpoint"),
    ("Workbook", "application/vnd.ms-excel"),
    ("Book", "application/vnd.ms-excel"),
    ("__properties_version1.0", "application/vnd.ms-outlook"),
)
_ZIP_FOLDERS: Final = (("word/", DOCX), ("ppt/", PPTX), ("xl/", XLSX))
_EXTENSIONS: Final = {
    ".docx": DOCX, ".docm": DOCX, ".pptx": PPTX, ".pptm": PPTX, ".xlsx": XLSX, ".xlsm": XLSX, ".epub": EPUB,
    ".odt": _ODF + "text", ".ods": _ODF + "spreadsheet", ".odp": _ODF + "presentation",
}  # fmt: skip
_TEXT_EXTENSIONS: Final = {
    ".md": "text/markdown", ".markdown": "text/markdown", ".mdx": "text/markdown", ".txt": "text/plain",
    ".text": "text/plain", ".log": "text/plain", ".csv": "text/csv", ".tsv": "text/tab-separated-values",
    ".tab": "text/tab-separated-values", ".json": "application/json", ".ndjson": "application/x-ndjson",
    ".jsonl": "application/x-ndjson", ".html": "text/html", ".htm": "text/html", ".xhtml": "text/html",
    ".xml": "application/xml", ".eml": "message/rfc822", ".rst": "text/x-rst",
}  # fmt: skip
_HTML: Final = re.compile(
    r"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.I | re.S
)
_HTML_TAG: Final = re.compile(r"<(?:p|div|table|h[1-6]|span|ul|ol|article|section|br)\b[^>]*>", re.I)
_MAIL_HEADER: Final = re.compile(
    r"^(from|to|date|subject|mime-version|message-id|received|return-path|cc):", re.I | re.M
)
_MAIL_START: Final = re.compile(r"(?:From [^\n]+\n)?[A-Za-z][A-Za-z0-9-]*:[ \t]?[^\n]*\n")
_MARKDOWN: Final = re.compile(r"^(?:---\n.{1,4000}?\n---\n|#{1,6} \S|```)", re.M | re.S)
PGP_ARMOUR: Final = re.compile(r"-----BEGIN PGP MESSAGE-----.*?(?:-----END PGP MESSAGE-----|\Z)", re.S)


def _extension(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _sniff_zip(data: bytes, name: str) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
            if "mimetype" in names and archive.getinfo("mimetype").file_size < 200:
                return archive.read("mimetype").decode("ascii", "replace").strip()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, EOFError) as error:
        kind = _EXTENSIONS.get(_extension(name), ZIP)
        raise UnreadableError(
            f"The file is damaged or truncated: it begins like {kind}, but its ZIP directory cannot be read ({error}). "
            "Get a complete copy.",
            kind,
        ) from error
    if "[Content_Types].xml" in names:
        for folder, kind in _ZIP_FOLDERS:
            if any(member.startswith(folder) for member in names):
                return kind
    return ZIP


def _sniff_ole(data: bytes) -> str:
    if "EncryptedPackage".encode("utf-16-le") in data:
        raise UnreadableError("The Office file is encrypted and needs a password. Save a copy without it.", OLE)
    for stream, kind in _OLE_STREAMS:
        if stream.encode("utf-16-le") in data:
            return kind
    return OLE


def sniff_binary(data: bytes, name: str) -> str | None:  # noqa: PLR0911 - one return per sign
    """Tell a binary format by its first bytes; None where it may be text.

    Raises:
        UnreadableError: The container is damaged or encrypted, so that what it holds cannot be told.
    """
    if not data:
        return EMPTY
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _sniff_zip(data, name)
    if b"%PDF-" in data[:1024] and not data[:1024].lstrip().startswith(b"<"):
        return PDF
    if data.startswith(_OLE):
        return _sniff_ole(data)
    if data.startswith(b"{\\rtf"):
        return "application/rtf"
    if data.startswith(b"RIFF"):
        return _RIFF.get(data[8:12], BINARY)
    if data[4:8] == b"ftyp":
        return "image/heic" if data[8:12] in {b"heic", b"heix", b"avif"} else "video/mp4"
    if data.startswith(b"BM") and int.from_bytes(data[2:6], "little") == len(data):
        return "image/bmp"
    if data[257:262] == b"ustar":
        return "application/x-tar"
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), None)


def _looks_like_mail(head: str) -> bool:
    if not _MAIL_START.match(head):
        return False
    found = {match.lower() for match in _MAIL_HEADER.findall(re.split(r"\n\s*\n", head, maxsplit=1)[0])}
    return len(found) >= 3 and bool(found & {"from", "received", "return-path"})


def _looks_like_records(head: str) -> bool:
    lines = [line.strip() for line in head.split("\n")[:4]][:-1]
    return len(lines) > 1 and all(line.startswith("{") and line.endswith("}") for line in lines if line)


def sniff_text(text: str, name: str) -> str:  # noqa: PLR0911 - one return per sign
    """Tell the kind of a text: by unmistakable signs in it, then by its extension, then by weaker signs."""
    head = text[:16_384].replace("\r\n", "\n")
    if _HTML.match(head):
        return "text/html"
    if _looks_like_mail(head):
        return "message/rfc822"
    extension = _extension(name)
    if extension in _TEXT_EXTENSIONS:
        return _TEXT_EXTENSIONS[extension]
    guessed = mimetypes.guess_type(f"x{extension}")[0] if extension else None
    if guessed is not None and guessed.startswith("text/"):
        return guessed
    stripped = head.lstrip()
    if stripped.startswith("<?xml"):
        return "application/xml"
    if _looks_like_records(stripped):
        return "application/x-ndjson"
    if stripped.startswith(("{", "[")) and text.rstrip().endswith(("}", "]")):
        return "application/json"
    if len(_HTML_TAG.findall(head)) > 3 and stripped.startswith("<"):
        return "text/html"
    return "text/markdown" if extension not in CODE_LANGUAGES and _MARKDOWN.search(head) else "text/plain"


CODE_LANGUAGES: Final = {
    ".py": "python", ".js": "javascript", ".ts": "typescript", ".tsx": "tsx", ".jsx": "jsx", ".java": "java",
    ".c": "c", ".h": "c", ".cc": "cpp", ".cpp": "cpp", ".hpp": "cpp", ".cs": "csharp", ".go": "go", ".rs": "rust",
    ".rb": "ruby", ".php": "php", ".sh": "bash", ".bash": "bash", ".ps1": "powershell", ".sql": "sql", ".r": "r",
    ".kt": "kotlin", ".swift": "swift", ".scala": "scala", ".lua": "lua", ".pl": "perl", ".css": "css",
    ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".ini": "ini", ".cfg": "ini", ".conf": "ini",
    ".tf": "hcl", ".dockerfile": "dockerfile", ".proto": "protobuf", ".gradle": "groovy", ".vue": "vue",
}  # fmt: skip


def code_language(name: str) -> str | None:
    """Return the name of the programming language that a file's extension stands for."""
    return CODE_LANGUAGES.get(_extension(name))
