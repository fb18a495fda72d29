"""Does a passage say what a sentence says? Words and numbers decide, and similarity where an embedder is at hand.

This is no entailment: it finds invented numbers, addresses, names and topics, and many a lost "not"; it does not find
that two numbers of one passage changed places, nor a wrong verb among right nouns.

Measured on 56 sentences about the example corpus's page on benefits, each with the section that it cites, MiniLM: of 28
true ones in other words 23 reach 0.6 (25 reach 0.5), of 28 false ones on the same topic 6 (12). No sentence with a
wrong number or address had more than 0. Nothing is embedded here: similarities come in.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rag_core.answering.numbers import number_terms, numbers
from rag_core.answering.sentences import Unit, plain_text, units
from rag_core.answering.terms import terms

_DOUBTFUL: Final = 0.4
"""Factor of a sentence with a name that no passage holds, or that denies where no sentence on the same topic does."""

_SAME_TOPIC: Final = 1 / 3  # of a sentence's terms: from here on a unit of a passage speaks of the same
_MEANS_THE_SAME: Final = 0.9  # cosine; paraphrases of MiniLM lie between `unrelated` (0.48) and this

_ADDRESS: Final = re.compile(r"(?:https?://|www\.)[^\s<>()\[\]\"'`]+|[\w.+-]+@[\w-]+(?:\.[\w-]+)+", re.IGNORECASE)
_DENIAL: Final = re.compile(
    r"\b(?:not|never|no|none|nobody|nothing|nor|neither|cannot|without)\b|n['’]t\b", re.IGNORECASE
)
_INNER_WORD: Final = re.compile(r"(?<=[\w,;)] )[^\W\d_]{2,}")  # not the first of a sentence
_LIST_MARKER: Final = re.compile(r"\s*(?:[-*+•]|\d{1,3}[.)])\s+")


@dataclass(frozen=True, slots=True)
class _Said:
    """A unit of a passage, or a line that is in none (a heading, a long listing), as it is compared.

    `own` are its terms, `topic` these and those of title and headings, `terms` all that and what stands before it.
    """

    unit: Unit | None
    own: frozenset[str]
    topic: frozenset[str]
    terms: frozenset[str]
    numbers: frozenset[str]
    denies: bool


@dataclass(frozen=True, slots=True)
class Evidence:
    """A passage, split and counted once for all the sentences that are compared with it. Made by `evidence_of`."""

    quotable: str
    terms: frozenset[str]
    addresses: frozenset[str]
    said: tuple[_Said, ...]

    @property
    def units(self) -> tuple[Unit, ...]:
        """The units of the passage, in order; offsets are in its text."""
        return tuple(one.unit for one in self.said if one.unit is not None)


def evidence_of(text: str, *, context: str = "") -> Evidence:
    """Prepare a passage.

    Args:
        text: As it stands in the document, Markdown included.
        context: Title and headings above it; their words and numbers count as the passage's.
    """
    found = units(text)
    said = [_said(text[one.start : one.end], context, one) for one in found]
    said += [_said(line, context, None) for line in _lines_between(text, found)]
    plain = plain_text(text)
    return Evidence(
        quotable=_folded("\n".join([text, plain, *(one.plain for one in found)])),
        terms=frozenset(terms(text) | terms(plain) | terms(context)).union(*(one.terms for one in said)),
        addresses=_addresses(text) | _addresses(plain),
        said=tuple(said),
    )


def support(
    sentence: str, evidence: Sequence[Evidence], similarity: float | None = None, *, unrelated: float = 0.48
) -> float:
    """Say how much the passages support a sentence. A further passage never makes it less.

    A sentence that is quoted has 1. One with an address that no passage holds, or with a number that no sentence of
    them that shares a word with it holds, has 0. Else it is the share of its terms that the passages hold together, or
    the mean of that and of the similarity, if this is more. It is less if it names what they do not name, or if nothing
    but the contrary is said.

    Args:
        sentence: Without citation markers.
        evidence: The passages that it cites.
        similarity: Highest cosine of the sentence and a sentence of these passages; None if nothing was embedded.
        unrelated: Cosine up to which two texts have nothing in common, by the model that embedded them.

    Returns:
        0 to 1.
    """
    claim = plain_text(_LIST_MARKER.sub("", sentence, count=1) if _LIST_MARKER.match(sentence) else sentence)
    if not any(character.isalnum() for character in claim):
        return 0.0
    if any(_is_quoted(text, one) for text in (sentence, claim) for one in evidence):
        return 1.0
    counted, wanted = numbers(claim), terms(claim) - number_terms(claim)
    if foreign_addresses(claim, evidence) or not _hold_numbers(evidence, counted, wanted):
        return 0.0
    if not wanted:
        return 1.0 if counted else 0.0
    held = frozenset[str]().union(*(one.terms for one in evidence))
    share = len(wanted & held) / len(wanted)
    near = 0.0 if similarity is None else (similarity - unrelated) / (_MEANS_THE_SAME - unrelated)
    fits = _names(claim) <= held and _in_this_sense(evidence, wanted, denies=_denies(claim))
    factor = 1.0 if fits else _DOUBTFUL
    return factor * max(share, (share + min(max(near, 0.0), 1.0)) / 2)


def best_unit(sentence: str, evidence: Evidence) -> Unit | None:
    """Return the unit of a passage that shares most with a sentence, the first of equals; None if none shares any."""
    claim = plain_text(sentence)
    counted, wanted = numbers(claim), terms(claim) - number_terms(claim)
    best, most = None, 0
    for one in evidence.said:
        shared = 2 * len(wanted & one.own) + len(wanted & (one.terms - one.own)) + 2 * len(counted & one.numbers)
        if one.unit is not None and shared > most:
            best, most = one.unit, shared
    return best


def foreign_addresses(sentence: str, evidence: Iterable[Evidence]) -> frozenset[str]:
    """Return the web and mail addresses of a sentence that no passage holds."""
    return _addresses(sentence).difference(*(one.addresses for one in evidence))


def _hold_numbers(evidence: Sequence[Evidence], counted: frozenset[str], wanted: set[str]) -> bool:
    """Whether each number stands in a sentence that shares a word with the one that was made."""
    near = (one.numbers for passage in evidence for one in passage.said if not wanted or wanted & one.terms)
    return not counted.difference(*near)


def _names(claim: str) -> set[str]:
    """Return the terms of words with a capital inside a sentence; none of a text in which most words have one.

    Those are titles, and languages that write nouns so.
    """
    words = _INNER_WORD.findall(claim)
    names = [word for word in words if word[0].isupper()]
    return terms(" ".join(names)) if 2 * len(names) < len(words) else set()


def _in_this_sense(evidence: Sequence[Evidence], wanted: set[str], *, denies: bool) -> bool:
    """Whether a sentence that speaks of the same denies, or does not, as the one that was made."""
    needed = _SAME_TOPIC * len(wanted)
    return any(
        one.denies == denies and len(wanted & one.topic) >= needed for passage in evidence for one in passage.said
    )


def _said(raw: str, context: str, unit: Unit | None) -> _Said:
    plain, before = (unit.plain, unit.context) if unit else (plain_text(raw), "")
    own = frozenset(terms(plain) | terms(raw))
    topic = own | terms(context)
    counted = numbers("\n".join([plain, raw, before, context]), pronouns=True)
    return _Said(unit, own, topic, topic | terms(before), counted, _denies(plain))


def _lines_between(text: str, found: Sequence[Unit]) -> Iterator[str]:
    end = 0
    for start, after in [*((one.start, one.end) for one in found), (len(text), len(text))]:
        yield from (line for line in text[end:start].splitlines() if any(map(str.isalnum, line)))
        end = after


def _denies(text: str) -> bool:
    return _DENIAL.search(text) is not None


def _addresses(text: str) -> frozenset[str]:
    return frozenset(match[0].rstrip(".,;:!?*_").casefold() for match in _ADDRESS.finditer(text))


def _is_quoted(sentence: str, evidence: Evidence) -> bool:
    """Whether the sentence stands in the passage word by word, no matter how lines are broken."""
    wanted = _folded(sentence)
    at = evidence.quotable.find(wanted)
    while at >= 0:
        before, after = evidence.quotable[:at][-1:], evidence.quotable[at + len(wanted) :][:1]
        if not (before.isalnum() and wanted[0].isalnum()) and not (after.isalnum() and wanted[-1].isalnum()):
            return True
        at = evidence.quotable.find(wanted, at + 1)
    return False


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())
