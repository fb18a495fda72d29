"""Telling the character set of a text and decoding it; binary data is refused."""

import codecs
import re
from itertools import pairwise
from typing import Final

_BOMS: Final = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_DECLARED: Final = re.compile(
    rb"""<(?:meta[^>]{0,200}charset|\?xml[^>]{0,80}encoding)\s*=\s*["']?\s*([-\w]{2,30})""", re.I
)
_SAMPLE_BYTES: Final = 65_536
_MAX_BROKEN_SHARE: Final = 0.01  # of the characters of a text that is otherwise UTF-8
_CONTROLS: Final = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_MAX_CONTROL_SHARE: Final = 0.005
_KANA: Final = re.compile("[\u3041-\u30fe]")
_WIDE: Final = re.compile("[^\x00-\x7f]")
_LATIN_1: Final = "cp1252"  # a superset of ISO-8859-1 for every printable character


def _without_bom(data: bytes) -> str | None:
    """Recognise UTF-16 and UTF-32 without a mark by where their NUL bytes stand."""
    sample = data[:4096]
    if len(sample) < 8 or sample.count(0) < len(sample) * 0.2:
        return None
    nuls = [sample[i::4].count(0) * 4 / len(sample) for i in range(4)]
    if min(nuls[1:]) > 0.9 and nuls[0] < 0.5:
        return "utf-32-le"
    if min(nuls[:3]) > 0.9 and nuls[3] < 0.5:
        return "utf-32-be"
    if min(nuls[1], nuls[3]) > 0.4 and max(nuls[0], nuls[2]) < 0.1:
        return "utf-16-le"
    if min(nuls[0], nuls[2]) > 0.4 and max(nuls[1], nuls[3]) < 0.1:
        return "utf-16-be"
    return None


def _legacy(data: bytes) -> str:
    """Choose a character set for bytes that are no Unicode encoding.

    Japanese shows by its kana, which Latin bytes read as CP932 never give. Other dense runs of high bytes (Chinese,
    Korean, Cyrillic, Greek) go to charset-normalizer; isolated ones among ASCII letters are Western European.
    """
    sample = data[:_SAMPLE_BYTES]
    for name in ("cp932", "euc_jp"):
        text = sample.decode(name, "replace")
        wide = len(_WIDE.findall(text))
        if text.count("\ufffd") <= wide * 0.02 and len(_KANA.findall(text)) >= max(2, wide * 0.15):
            return name
    high = [byte > 0x7F for byte in sample]
    pairs = sum(1 for first, second in pairwise(high) if first and second)
    if pairs < 0.35 * max(1, sum(high)):
        return _LATIN_1
    from charset_normalizer import from_bytes

    best = from_bytes(sample).best()
    return best.encoding if best is not None else _LATIN_1


def _known(name: str) -> str | None:
    try:
        return codecs.lookup(name).name
    except LookupError:
        return None


def decode(data: bytes) -> str | None:
    """Decode a text in whatever character set it is; None where the bytes are not text.

    A byte order mark decides, then valid UTF-8, then what the page itself declares, then the bytes' own shape.
    Characters that do not decode become U+FFFD.
    """
    for mark, name in _BOMS:
        if data.startswith(mark):
            return data[len(mark) :].decode(name, "replace")
    unmarked = _without_bom(data)
    if unmarked is not None:
        return data.decode(unmarked, "replace")
    if len(_CONTROLS.findall(data[:_SAMPLE_BYTES])) > _MAX_CONTROL_SHARE * min(len(data), _SAMPLE_BYTES):
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    declared = _DECLARED.search(data[:2048])
    name = (_known(declared[1].decode("ascii")) if declared else None) or "ascii"
    if name in {"utf-8", "ascii"} or name.startswith("utf-16"):
        text = data.decode("utf-8", "replace")
        proper = len(_WIDE.findall(text)) - text.count("\ufffd")
        if text.count("\ufffd") <= _MAX_BROKEN_SHARE * len(text) and proper > text.count("\ufffd"):
            return text
        name = _legacy(data)
    # Browsers, too, read ISO-8859-1 as the superset: its quotation marks are in so many pages that declare it.
    return data.decode(_LATIN_1 if name == "iso8859-1" else name, "replace")
