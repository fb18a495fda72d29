"""Globs over object keys, translated once to regular expressions; no file system is touched.

`*` and `?` stay inside a name, `[...]` is a character class, `**` as a whole segment stands for any number of folders,
none included, and at the end for everything below, as in .gitignore: `a/**` is not `a` itself. Case counts.
"""

import re
from collections.abc import Sequence


def translate(pattern: str) -> str:
    """Translate a glob to a regular expression for `fullmatch`."""
    parts = [part for part in pattern.split("/") if part]
    parts = [part for part, before in zip(parts, ["", *parts], strict=False) if not part == before == "**"]
    expression = ""
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if part != "**":
            expression += _segment(part) + ("" if last else "/")
        elif not last:
            expression += "(?:[^/]*/)*"  # keys of S3 may have folders without a name: `a//b`
        else:
            expression += ".+"
    return f"(?s:{expression})"


def _segment(part: str) -> str:
    expression, position = "", 0
    while position < len(part):
        char = part[position]
        end = part.find("]", position + 2 + part.startswith("!", position + 1)) if char == "[" else -1
        if end > 0:
            body = part[position + 1 : end].replace("\\", r"\\").replace("[", r"\[").replace("^", r"\^")
            expression += f"(?!/)[{'^' + body[1:] if body.startswith('!') else body}]"
            position = end
        elif char == "*":
            expression += "[^/]*"
        else:
            expression += "[^/]" if char == "?" else re.escape(char)
        position += 1
    return expression


class KeyFilter:
    """Decides which keys a source reads: those that an include glob matches and no exclude glob does."""

    def __init__(self, include: Sequence[str], exclude: Sequence[str]) -> None:
        self._include = _any_of(include)
        self._exclude = _any_of(exclude)
        # only `folder/**` excludes all that a folder holds, so only such globs spare reading it
        self._prune = _any_of([pattern.removesuffix("/**") for pattern in exclude if pattern.endswith("/**")])

    def admits(self, key: str) -> bool:
        """Whether the object is read."""
        return self._include.fullmatch(key) is not None and self._exclude.fullmatch(key) is None

    def prunes(self, folder: str) -> bool:
        """Whether nothing below this folder can be admitted."""
        return self._prune.fullmatch(folder) is not None


def _any_of(patterns: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(translate, patterns)) or r"(?!)")
