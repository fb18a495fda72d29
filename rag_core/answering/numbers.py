"""Numbers of a text as they are compared: "1,000", "1000" and "thousand" are one number, "30" and "3" are two."""

import re
from typing import Final

from rag_core.answering.terms import terms

_DIGITS: Final = re.compile(r"\d+(?:[.,’']\d+)*")
_THOUSANDS: Final = re.compile(r"\d{1,3}(?:[,’']\d{3})+(?:\.\d+)?")
_ONES: Final = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
_TEENS: Final = [
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
_TENS: Final = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_WORDS: Final = {
    **{word: value for value, word in enumerate([*_ONES, *_TEENS], start=1)},
    **{word: 10 * value for value, word in enumerate(_TENS, start=2)},
    **{"once": 1, "twice": 2, "hundred": 100, "thousand": 1_000, "million": 1_000_000},
}
_WORD: Final = re.compile(
    rf"\b(?:(?P<tens>{'|'.join(_TENS)})[\s-](?P<ones>{'|'.join(_ONES)})|(?P<word>{'|'.join(_WORDS)}))\b", re.IGNORECASE
)
_MEASURED: Final = re.compile(
    r"[\s-]+(?:a|an|per|every|second|minute|hour|day|night|week|month|quarter|year|time|percent)s?\b", re.IGNORECASE
)


def numbers(text: str, *, pronouns: bool = False) -> frozenset[str]:
    """Return the numbers of a text, as digits without separators of thousands and without zeros that say nothing.

    Args:
        text: Digits anywhere, even inside a word, and English number words.
        pronouns: Whether any "one" and "once" count, which are pronoun and conjunction more often than numbers. Without
            it they count where something is measured: "one hour", "once a week".
    """
    found = {_canonical(match[0]) for match in _DIGITS.finditer(text)}
    for match in _WORD.finditer(text):
        if match["word"] is None:
            found.add(str(_WORDS[match["tens"].casefold()] + _WORDS[match["ones"].casefold()]))
        elif pronouns or match["word"].casefold() not in ("one", "once") or _MEASURED.match(text, match.end()):
            found.add(str(_WORDS[match["word"].casefold()]))
    return frozenset(found)


def number_terms(text: str) -> set[str]:
    """Return the terms of a text that are nothing but numbers, which are not to be compared as words."""
    return {term for term in terms(text) if term.isdigit()}.union(*(terms(match[0]) for match in _WORD.finditer(text)))


def _canonical(digits: str) -> str:
    if _THOUSANDS.fullmatch(digits):
        digits = re.sub(r"[,’']", "", digits)
    if re.fullmatch(r"\d+\.\d{1,2}", digits):
        digits = digits.rstrip("0").removesuffix(".")
    return digits.lstrip("0") or "0"
