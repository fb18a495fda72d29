"""Words of a text as they are compared: case-folded, without stop words, with common English endings removed.

Chinese, Japanese and Korean text is compared by pairs of characters, since it has no spaces between words.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np

_WORD = re.compile(r"\w+(?:['’]\w+)*")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
_HOW = re.compile(r"\bhow (?:long|often|quick(?:ly)?|soon|fast|far|old|large|big|much|many)\b", re.IGNORECASE)
_ASKS_NUMBER = re.compile(_HOW.pattern + r"|\bwhen\b|\bwhat (?:time|date|year|number)\b", re.IGNORECASE)
_NUMBER = re.compile(
    r"\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|once|twice|half|dozen|hundreds?|thousands?"
    r"|immediately|hourly|daily|weekly|biweekly|monthly|quarterly|annually|yearly)\b",
    re.IGNORECASE,
)
_STOP_WORDS: Final = """
    a about after all also am an and any are as at be because been before being between both but by can could did do
    does doing done during each for from get gets had has have having he her here him his how i if in into is it its
    itself just many may me might more most much must my no nor not of off on once one only or other our out over own
    please same shall she should so some such tell than that the their them then there these they this those
    through to too under until up us very was we were what when where which while who whom whose why will with would
    you your yours
"""
_STOP: Final = frozenset(_STOP_WORDS.split())
_ENDINGS: Final = (("ies", "y"), ("sses", "ss"), ("ing", ""), ("ed", ""), ("es", ""), ("ly", ""), ("s", ""))
_MIN_STEM: Final = 4  # "pay" from "paying" would be fine, "us" from "used" would not


def terms(text: str) -> set[str]:
    """Return the distinct terms of a text."""
    return set(_terms(text))


def question_terms(question: str) -> set[str]:
    """Return the terms a question asks about; "how long", "how often" ask for a kind of answer, not for a word."""
    return terms(_HOW.sub(" ", question))


def asks_number(question: str) -> bool:
    """Whether an English question expects a number, a time or a frequency: "how long", "how many", "when".

    Source: Li and Roth 2002, "Learning Question Classifiers", COLING: the answer types NUM:count, NUM:date, NUM:period.
    """
    return _ASKS_NUMBER.search(question) is not None


def has_number(text: str) -> bool:
    """Whether a text holds a digit, a small number in words, or a frequency."""
    return _NUMBER.search(text) is not None


def idf(question: Iterable[str], candidates: Sequence[set[str]]) -> dict[str, float]:
    """Weigh the question's terms by how few candidates hold them; a term that none holds weighs most.

    Source: Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", with 1 added inside
        the logarithm, as Lucene does, so that no weight is negative.

    Returns:
        Term to ln(1 + (N - n + 0.5) / (n + 0.5)), N candidates of which n hold the term.
    """
    total = len(candidates)
    counts = {term: sum(term in candidate for candidate in candidates) for term in question}
    return {term: float(np.log1p((total - count + 0.5) / (count + 0.5))) for term, count in counts.items()}


def _terms(text: str) -> Iterator[str]:
    for match in _WORD.finditer(text):
        word = match[0].casefold().replace("’", "'").removesuffix("'s")
        for run in _CJK.findall(word):
            yield from (run[at : at + 2] for at in range(max(len(run) - 1, 1)))
        word = _CJK.sub("", word)
        if word and word not in _STOP:
            yield _stem(word)


def _stem(word: str) -> str:
    if not word.isalpha():
        return word
    for ending, replacement in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _MIN_STEM - len(replacement):
            stem = word.removesuffix(ending) + replacement
            return stem.removesuffix("e") if len(stem) > _MIN_STEM else stem
    return word.removesuffix("e") if len(word) > _MIN_STEM else word
