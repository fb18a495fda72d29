"""Fast token positions for BERT tokenizers, exact: words and runs of punctuation are encoded once and remembered.

BERT's pre-tokeniser splits at white space and at every punctuation character, so the tokens of a word do not depend on
its neighbours. Natural text repeats its words: looking them up is several times faster than encoding them again.
"""

from collections.abc import Mapping
from itertools import compress
from typing import Any, Final

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int32]

_SPACE, _WORD, _PUNCTUATION, _IDEOGRAPH = 0, 1, 2, 3
_ASCII_SPACE: Final = " \t\n\r"  # others (no-break space, \x1c) are left to the tokenizer: it may drop or keep them
_ASCII_PUNCTUATION: Final = "".join(chr(c) for c in range(33, 127) if not chr(c).isalnum())
_OTHER_PUNCTUATION: Final = "。、！？「」『』（）【】《》〈〉…—–‘’“”«»"
_IDEOGRAPHS: Final = (0x4E00, 0x9FFF)
_TABLE_SIZE: Final = 0x10000

_SEGMENT_CHARS: Final = 1 << 20
_MAX_CACHED_WORDS: Final = 1 << 16
_MAX_CACHED_CHARS: Final = 1 << 22


def _class_table() -> npt.NDArray[np.uint8]:
    """Classify characters such that no word of BERT's crosses from one class to another; others count as _WORD."""
    table = np.full(_TABLE_SIZE, _WORD, dtype=np.uint8)  # the last stands for every character beyond
    table[[ord(character) for character in _ASCII_SPACE]] = _SPACE
    table[[ord(character) for character in _ASCII_PUNCTUATION + _OTHER_PUNCTUATION]] = _PUNCTUATION
    table[_IDEOGRAPHS[0] : _IDEOGRAPHS[1] + 1] = _IDEOGRAPH
    return table


_CLASSES: Final = _class_table()


def is_bert(settings: Mapping[str, Any]) -> bool:
    """Whether a tokenizer.json describes a tokenizer whose words are encoded independently of one another."""
    parts = [settings.get(key) or {} for key in ("normalizer", "pre_tokenizer", "model")]
    return (
        [part.get("type") for part in parts] == ["BertNormalizer", "BertPreTokenizer", "WordPiece"]
        and parts[0].get("handle_chinese_chars") is True
        and not any(token.get("normalized") for token in settings.get("added_tokens", []))
    )


def is_boundary(character: str) -> bool:
    """Whether a BERT tokenizer ends a word before and after this character."""
    return bool(_CLASSES[min(ord(character), _TABLE_SIZE - 1)] != _WORD)


class WordCache:
    """Token offsets inside each word seen so far, as flat arrays; bounded, and emptied when full."""

    def __init__(self, tokenizer: Any, *, lowercase: bool) -> None:
        """Start empty; `lowercase` as in the tokenizer's normaliser."""
        self._tokenizer = tokenizer
        self._lowercase = lowercase
        # Words of the vocabulary are one token, and three new words in four are among them: no need to encode them.
        vocabulary = tokenizer.get_vocab(with_added_tokens=False)
        self._one_token = frozenset(word for word in vocabulary if word.isascii() and word.isalnum())
        self._reset()

    def _reset(self) -> None:
        self._ids: dict[str, int] = {}
        self._chars = 0
        self._first = np.zeros(1, dtype=np.int64)  # word i owns offsets[first[i]:first[i + 1]]
        self._offsets = np.empty(0, dtype=np.int32)

    def starts(self, text: str) -> IntArray:
        """Return (n_tokens,) int32, where each token of `text` starts, ascending."""
        parts: list[IntArray] = []
        position = 0
        while position < len(text):
            end = _segment_end(text, position)
            parts.append(self._segment(text[position:end]) + np.int32(position))
            position = end
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int32)

    def _segment(self, text: str) -> IntArray:
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        classes = _CLASSES[np.minimum(codes, _TABLE_SIZE - 1)]
        edges = np.concatenate(([0], np.flatnonzero(classes[1:] != classes[:-1]) + 1, [len(text)]))
        keep = classes[edges[:-1]] != _SPACE
        word_starts = edges[:-1][keep]
        words = [text[a:b] for a, b in zip(word_starts.tolist(), edges[1:][keep].tolist(), strict=True)]
        self._learn(words)
        word_ids = np.fromiter(map(self._ids.__getitem__, words), dtype=np.int64, count=len(words))
        first = self._first[word_ids]
        counts = self._first[word_ids + 1] - first
        # Token j of the text is token j - before[w] of its word w.
        before = np.cumsum(counts) - counts
        inside = np.arange(int(counts.sum())) + np.repeat(first - before, counts)
        starts: IntArray = (np.repeat(word_starts, counts) + self._offsets[inside]).astype(np.int32)
        return starts

    def _learn(self, words: list[str]) -> None:
        if len(self._ids) > _MAX_CACHED_WORDS or self._chars > _MAX_CACHED_CHARS:
            self._reset()
        new = list(set(words).difference(self._ids))
        if not new:
            return
        lowered = [word.lower() for word in new] if self._lowercase else new
        one = [word in self._one_token for word in lowered]
        known = list(compress(new, one))
        other = [word for word, is_one in zip(new, one, strict=True) if not is_one]
        pairs = [encoding.offsets for encoding in self._tokenizer.encode_batch(other, add_special_tokens=False)]
        starts = [0] * len(known) + [start for word in pairs for start, _ in word]
        ends = np.cumsum([1] * len(known) + [len(word) for word in pairs], dtype=np.int64) + len(self._offsets)
        new = known + other
        self._ids.update(zip(new, range(len(self._ids), len(self._ids) + len(new)), strict=True))
        self._chars += sum(map(len, new))
        self._first = np.concatenate((self._first, ends))
        self._offsets = np.concatenate((self._offsets, np.array(starts, dtype=np.int32)))


def _segment_end(text: str, start: int) -> int:
    """Return where a segment of bounded size ends: after white space, beyond the bound if there is none."""
    limit = start + _SEGMENT_CHARS
    if limit >= len(text):
        return len(text)
    cut = text.rfind("\n", start, limit)
    if cut < 0:
        cut = text.rfind(" ", start, limit)
    if cut < 0:
        found = [p for p in (text.find("\n", limit), text.find(" ", limit)) if p >= 0]
        cut = min(found, default=len(text) - 1)
    return cut + 1
