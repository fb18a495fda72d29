"""Patterns of personal data in text: what looks like an address, a number of a card or an account, with its checksum.

Cheap checks come first: a text without `@` or digits is not looked at by a regular expression.
"""

import re
from collections.abc import Callable, Sequence
from typing import Final, Literal

import pyarrow as pa
import pyarrow.compute as pc

PatternName = Literal["email", "phone", "credit_card", "iban", "us_ssn"]


def luhn(number: str) -> bool:
    """Whether the digits of a number have the check digit of payment cards.

    Source: ISO/IEC 7812-1, annex B.
    """
    digits = [int(char) for char in number if char.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def iban_valid(number: str) -> bool:
    """Whether an account number has the check digits of an IBAN: remainder 1 by 97.

    Source: ISO 13616-1, section 5.
    """
    compact = "".join(number.split()).upper()
    turned = compact[4:] + compact[:4]
    return 15 <= len(compact) <= 34 and turned.isalnum() and int("".join(str(int(c, 36)) for c in turned)) % 97 == 1


def _card(text: str) -> bool:
    digits = sum(char.isdigit() for char in text)
    # A run of one digit is a filler of a form or table; some pass the checksum.
    return 13 <= digits <= 19 and len(set(text) - set(" -")) > 1 and luhn(text)


def _always(_text: str) -> bool:
    return True


# Prefilter (RE2, over a whole batch), exact pattern, and what decides on a match.
_PATTERNS: Final[dict[PatternName, tuple[str, re.Pattern[str], Callable[[str], bool]]]] = {
    "email": (r"\w@\w", re.compile(r"[\w.+-]{1,64}@(?:[\w-]{1,63}\.)+[A-Za-z]{2,24}\b"), _always),
    "phone": (
        r"\+\d|\(\d{3}\) ?\d{3}-|\b\d{3}[-.]\d{3}[-.]\d{4}\b",
        re.compile(
            r"(?<![\w+])(?:\+[1-9]\d{0,2}[ .-]?(?:\(0?\d{1,4}\)[ .-]?)?\d{2,4}(?:[ .-]?\d{2,4}){1,4}"
            r"|\(\d{3}\) ?\d{3}-\d{4}|\d{3}([-.])\d{3}\1\d{4})(?![\w])"
        ),
        lambda text: 9 <= sum(char.isdigit() for char in text) <= 15,
    ),
    "credit_card": (
        r"\d{4}[ -]?\d{4,6}[ -]?\d{4}",
        re.compile(r"(?<![\w.])[3-6]\d{3}(?:[ -]?\d){9,15}(?![\w])"),
        _card,
    ),
    "iban": (
        r"\b[A-Z]{2}\d{2} ?[A-Z0-9]{4}",
        re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b"),
        iban_valid,
    ),
    "us_ssn": (
        r"\b\d{3}-\d{2}-\d{4}\b",
        re.compile(r"(?<![\w-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])"),
        _always,
    ),
}

NAMES: Final = tuple(_PATTERNS)


def find(text: str, names: Sequence[PatternName] = NAMES) -> str | None:
    """Return the kinds of personal data that a text holds, of those named, comma-separated; None if it holds none."""
    return find_all(pa.array([text]), names)[0]


def find_all(texts: pa.Array, names: Sequence[PatternName] = NAMES) -> list[str | None]:
    """Return what `find` returns for each text of an array; null for null."""
    found: dict[int, list[str]] = {}
    for name in names:
        prefilter, pattern, decide = _PATTERNS[name]
        likely = pc.fill_null(pc.match_substring_regex(texts, prefilter), False)
        for row in pc.indices_nonzero(likely).to_pylist():
            if any(decide(match.group()) for match in pattern.finditer(texts[row].as_py())):
                found.setdefault(row, []).append(name)
    return [",".join(found[row]) if row in found else None for row in range(len(texts))]
