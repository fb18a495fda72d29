"""ZIP archives as one document: a section per readable member, within bounds that no crafted header gets around."""

import io
import zipfile
from collections.abc import Callable
from typing import Final

from rag_core.config import ArchiveLimits
from rag_core.parsing.markdown import heading
from rag_core.parsing.model import Extract, UnreadableError, clean_line

_READ_BYTES: Final = 1024 * 1024
_NOISE: Final = ("__MACOSX/", ".DS_Store", "Thumbs.db")
_HEADING_SHIFT: Final = 2
_DAMAGED: Final = (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError)


class ArchiveLimitError(UnreadableError):
    """A bound was passed; it counts for the whole object, not for one member."""


class Budget:
    """Unpacked bytes and entries still allowed for one object, over all archives inside it."""

    def __init__(self, limits: ArchiveLimits) -> None:
        self.limits = limits
        self._bytes = limits.max_total_bytes
        self._entries = limits.max_entries

    def entries(self, count: int) -> None:
        """Count entries."""
        self._entries -= count
        if self._entries < 0:
            raise ArchiveLimitError(
                f"The archive has more than {self.limits.max_entries} entries. Unpack it, or raise "
                "parsing.archive.max_entries."
            )

    def unpacked(self, count: int) -> None:
        """Count unpacked bytes."""
        self._bytes -= count
        if self._bytes < 0:
            raise ArchiveLimitError(
                f"The archive unpacks to more than {self.limits.max_total_bytes} bytes. Unpack it, or raise "
                "parsing.archive.max_total_bytes."
            )

    def depth(self, depth: int) -> None:
        """Check how deep an archive lies inside others; the outermost is at depth 1."""
        if depth > self.limits.max_depth:
            raise ArchiveLimitError(
                f"Archives or attachments are nested more than {self.limits.max_depth} deep. Unpack them, or raise "
                "parsing.archive.max_depth."
            )


def _shifted(text: str) -> str:
    """Push a member's headings below the member's own; lines in code blocks stay."""
    lines, fenced = [], ""
    for line in text.split("\n"):
        mark = line.lstrip()[:3]
        if mark in {"```", "~~~"} and (not fenced or mark == fenced):
            fenced = "" if fenced else mark
        elif not fenced and line.startswith("#"):
            level = len(line) - len(line.lstrip("#"))
            if level <= 6 and line[level : level + 1] == " ":
                lines.append("#" * min(6, level + _HEADING_SHIFT) + line[level:])
                continue
        lines.append(line)
    return "\n".join(lines)


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget: Budget) -> bytes:
    """Unpack a member, counting what comes out and not what the header says."""
    parts = []
    with archive.open(info) as stream:
        while part := stream.read(_READ_BYTES):
            budget.unpacked(len(part))
            parts.append(part)
    return b"".join(parts)


def _name(info: zipfile.ZipInfo) -> str:
    name = info.filename
    if not info.flag_bits & 0x800 and not name.isascii():  # the name is in whatever charset the packer used
        from rag_core.parsing.charset import decode

        name = decode(name.encode("cp437", "replace")) or name
    return clean_line(name) or "unnamed"


def zip_extract(data: bytes, budget: Budget, read_member: Callable[[str, bytes], str]) -> Extract:
    """Extract every readable member under a heading with its path; what could not be read is named with its reason.

    Over a bound the whole archive is refused and nothing of it is kept: a part of an archive, chosen by the order of
    its entries, would look like the whole.

    Args:
        data: The archive.
        budget: Shared by archives inside archives.
        read_member: Gives a member's Markdown from its path and bytes; empty for one without text. It raises
            UnreadableError for one that cannot be read.

    Raises:
        UnreadableError: Damaged, encrypted, or over a bound.
    """
    sections: list[str] = []
    unread: list[str] = []
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        members = [info for info in archive.infolist() if not info.is_dir() and not _is_noise(info.filename)]
    except _DAMAGED as error:
        raise UnreadableError(f"The archive is damaged or truncated ({error}). Get a complete copy.") from error
    if members and all(info.flag_bits & 1 for info in members):
        raise UnreadableError("The archive is encrypted and needs a password. Unpack it.")
    budget.entries(len(members))
    for info in members:
        name = _name(info)
        try:
            text = read_member(name, _read(archive, info, budget))
        except MemberUnreadableError as error:
            unread.append(f"- {name}: {error}")
        except _DAMAGED as error:
            unread.append(f"- {name}: damaged or encrypted ({clean_line(str(error))})")
        else:
            if text:
                sections.append("\n\n".join([*heading(2, name), _shifted(text)]))
    if sections and unread:
        sections.append("\n\n".join([*heading(2, "Members that could not be read"), "\n".join(unread)]))
    reason = "The archive has no member with text." if not unread else f"No member could be read: {unread[0][2:]}"
    return Extract(text="\n\n".join(sections), empty_reason=reason)


class MemberUnreadableError(UnreadableError):
    """One member cannot be read; the others can."""


def _is_noise(name: str) -> bool:
    return name.startswith(_NOISE[0]) or name.rsplit("/", 1)[-1] in _NOISE
