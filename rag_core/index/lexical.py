"""Terms of full-text search, made here and not by the backend's analyzer, so that every backend ranks alike.

A term consists of letters and digits only, in lower case, and terms are parted by spaces. Milvus Lite has no stemming,
and its tokenizer takes Chinese sentences for words and cuts words at combining marks.
"""

import re
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from importlib import import_module, metadata
from itertools import repeat
from typing import Any, Final

_VERSION: Final = 1  # moves when a text's terms change: what is indexed and what is asked must be made alike
_ENGLISH: Final = "english"
# ISO 639-1 codes of the languages that Snowball has algorithms for.
_ALGORITHMS: Final = {
    "ar": "arabic", "ca": "catalan", "cs": "czech", "da": "danish", "de": "german", "el": "greek", "en": _ENGLISH,
    "eo": "esperanto", "es": "spanish", "et": "estonian", "eu": "basque", "fa": "persian", "fi": "finnish",
    "fr": "french", "ga": "irish", "hi": "hindi", "hu": "hungarian", "hy": "armenian", "id": "indonesian",
    "it": "italian", "lt": "lithuanian", "nb": "norwegian", "ne": "nepali", "nl": "dutch", "nn": "norwegian",
    "no": "norwegian", "pl": "polish", "pt": "portuguese", "ro": "romanian", "ru": "russian", "sr": "serbian",
    "st": "sesotho", "sv": "swedish", "ta": "tamil", "tr": "turkish", "yi": "yiddish",
}  # fmt: skip
# Source: https://snowballstem.org/algorithms/english/stop.txt, with what is left of "don't" and the like, but without
# words that are also names (IT, US, May, Will) or change the sense (no, not, before, more).
_STOP_WORDS: Final = """
    a about again all am an and any are as at be because been being both but by can cannot could d did do does doing
    down during each for from further had has have having he her here hers herself him himself his how i if in into is
    its itself ll m me might must my myself of off on once or other ought our ours ourselves out re s shall she should
    so some such t than that the their theirs them themselves then there these they this those through to too until up
    ve very was we were what when where which while who whom why with would you your yours yourself yourselves
"""
_STOP: Final = frozenset(_STOP_WORDS.split())
_MAX_CHARS: Final = 64  # of a word; what is longer is encoded data, and would fill the cache
_CACHED_WORDS: Final = 65_536  # some 25 MB in all; Snowball in Python takes about 20 us a word
_MARKED: Final = (*range(0x300, 0x1F000), *range(0xE0100, 0xE01F0))  # where Unicode has combining marks
_SOFT_HYPHEN: Final = "\u00ad"
_ASCII_WORD: Final = re.compile(r"[a-z0-9]+")
_WORD: Final = re.compile(r"\w+")
# Scripts written without spaces, and Hangul, whose words end in particles: Thai, Lao, Myanmar, Khmer, kana, Han.
_UNSPACED_CHARS: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
_UNSPACED: Final = re.compile(f"[{_UNSPACED_CHARS}]")
_SCRIPTS: Final = re.compile(f"[{_UNSPACED_CHARS}]+|[^{_UNSPACED_CHARS}]+")


def index_terms(text: str, language: str | None) -> str:
    """Return the terms under which a text is found, in its order, parted by spaces.

    Words become stems where Snowball has the language. Text in another language than English also keeps its words as
    they are, because a question does not tell its language. Scripts without spaces become characters and pairs of
    adjacent characters. Accents and other marks go, because people leave them out when they ask; they go after
    stemming, which needs them.

    Args:
        text: As people wrote it, any length.
        language: ISO 639-1. None counts as English, a language without an algorithm stays unstemmed.
    """
    algorithm = _ALGORITHMS.get(language or "en", "")
    normal = _normal(text)
    if not _UNSPACED.search(normal):
        return " ".join(map(_indexed, _runs(normal), repeat(algorithm)))
    return " ".join(
        " ".join(_grams(word)) if is_unspaced else _indexed(word, algorithm) for word, is_unspaced in _words(normal)
    )


def query_terms(question: str, languages: Sequence[str] = ("en",)) -> str:
    """Return the terms to search for: the question's words and their stems, each once, parted by spaces.

    Args:
        question: As people wrote it.
        languages: ISO 639-1 codes of the texts that are meant. Texts in other languages are found by their words as
            they are.

    Returns:
        Empty if the question has no word. English stop words are left out unless there is nothing else.
    """
    words = list(_words(_normal(question)))
    telling = [(word, is_unspaced) for word, is_unspaced in words if word not in _STOP] or words
    algorithms = ["", *(_ALGORITHMS.get(language, "") for language in languages)]
    terms: dict[str, None] = {}
    for word, is_unspaced in telling:
        if is_unspaced:
            terms.update(dict.fromkeys(_pairs(word) or [word]))
        else:
            terms.update((_term(word, algorithm), None) for algorithm in algorithms)
    return " ".join(terms)


def fingerprint_parts() -> dict[str, Any]:
    """Return what a text's terms depend on, for the collection's fingerprint."""
    return {"version": _VERSION, "snowball": metadata.version("snowballstemmer")}


def _normal(text: str) -> str:
    if text.isascii():
        return text.lower()
    normal = unicodedata.normalize("NFKC", text.replace(_SOFT_HYPHEN, "")).lower()
    # A few letters are not composed any more in lower case. Underscores part words, but \w takes them for letters.
    # Whether a capital sigma became a final one depended on what follows the word.
    return unicodedata.normalize("NFKC", normal).replace("_", " ").replace("ς", "σ")


def _runs(normal: str) -> list[str]:
    """Return the runs of letters, digits and their marks."""
    if normal.isascii():
        return _ASCII_WORD.findall(normal)
    has_marks = any(map(_is_mark, set(normal)))
    return (_marked_word() if has_marks else _WORD).findall(normal)


def _words(normal: str) -> Iterator[tuple[str, bool]]:
    """Split into words and runs of unspaced scripts, the latter without marks, and tell which is which."""
    for word in _runs(normal):
        for part in _SCRIPTS.findall(word):
            if _UNSPACED.match(part):
                if characters := "".join(filter(str.isalnum, part)):
                    yield characters, True
            elif _term(part[:_MAX_CHARS], ""):  # what follows an unspaced script may be nothing but marks
                yield part[:_MAX_CHARS], False


def _is_mark(character: str) -> bool:
    return character >= "\u0300" and unicodedata.category(character)[0] == "M"


@cache
def _marked_word() -> re.Pattern[str]:
    """Match a word with combining marks, for which `re` has no class; five times slower than without."""
    return re.compile(rf"\w[\w{''.join(filter(_is_mark, map(chr, _MARKED)))}]*")


@lru_cache(_CACHED_WORDS)
def _indexed(word: str, algorithm: str) -> str:
    word = word[:_MAX_CHARS]
    stem = _term(word, algorithm)
    if algorithm == _ENGLISH:
        return stem
    plain = _term(word, "")
    return stem if stem == plain else f"{stem} {plain}"


@lru_cache(_CACHED_WORDS)
def _term(word: str, algorithm: str) -> str:
    """Stem a word, unless the algorithm is empty, and take its marks away."""
    stem = _stem(word, algorithm) if algorithm else word
    if stem.isascii() and stem.isalnum():
        return stem
    # A stem that lost its last letter may be nothing but marks.
    return "".join(filter(str.isalnum, unicodedata.normalize("NFD", stem))) or (_term(word, "") if algorithm else "")


_lock = threading.Lock()


def _stem(word: str, algorithm: str) -> str:
    stemmer = _stemmer(algorithm)
    with _lock:  # a stemmer keeps the word it works on
        return str(stemmer.stemWord(word))


@cache
def _stemmer(algorithm: str) -> Any:
    # Not by `snowballstemmer.stemmer`, which prefers the C library where it is installed, in a version of its own.
    module = import_module(f"snowballstemmer.{algorithm}_stemmer")
    return getattr(module, f"{algorithm.title()}Stemmer")()


def _pairs(characters: str) -> list[str]:
    return [characters[at : at + 2] for at in range(len(characters) - 1)]


def _grams(characters: str) -> list[str]:
    """Return characters and pairs, so that a question of one character finds its text too."""
    return [*characters, *_pairs(characters)]
