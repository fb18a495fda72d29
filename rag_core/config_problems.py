"""One error for all that is wrong with a configuration: each problem with its place, key, value and expectation."""

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr, ValidationError
from pydantic_core import ErrorDetails

from rag_core.config import RagConfig
from rag_core.config_base import Section
from rag_core.config_keys import SOURCE_KINDS, Path, entry_section_of, field_at, is_secret, section_of, type_text
from rag_core.errors import ConfigError

_NO_VALUE = object()
_SHOWN_CHARS = 80
_BOUNDS = {
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        place: `rag.yaml:12`, `env RAG_BUCKETS`, or a file's name alone.
        key: Dotted key, with sources by name; empty for the file as a whole.
        expected: What should be there, as a phrase after "expected" or as a sentence.
        value: The value as it may be shown; empty if there is none or it is secret.
    """

    place: str
    key: str
    expected: str
    value: str = ""

    @property
    def order(self) -> tuple[bool, int]:
        """Sorts by line, variables last."""
        line = self.place.rpartition(":")[2]
        return self.place.startswith("env "), int(line) if line.isdigit() else 0

    def __str__(self) -> str:
        subject = f"{self.key} = {self.value}" if self.key and self.value else self.key
        return f"{self.place}: " + (f"{subject}: " if subject else "") + self.expected


def config_error(name: str, problems: Sequence[Problem]) -> ConfigError:
    """Make the one error that lists all problems, those of the file first and by line."""
    problems = sorted(problems, key=lambda problem: problem.order)
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return ConfigError("\n".join([f"{name}: {count} in the configuration", *(f"  {problem}" for problem in problems)]))


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean X?` for the nearest known word, or the known ones if none is near."""
    names = sorted(set(known))
    by_fold = {name.lower(): name for name in names}
    close = difflib.get_close_matches(word.lower(), by_fold, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {by_fold[close[0]]}?"
    return f"; known here: {', '.join(names)}" if names else ""


def shown(value: Any) -> str:
    """Write a value for an error message, short, on one line, without the login of an address."""
    text = re.sub(r"://[^/@\s]*@", "://***@", repr(value))
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 3] + "..."


def problems_of(
    error: ValidationError, kinds: dict[int, str], place: Callable[[Path], str], dotted: Callable[[Path], str]
) -> list[Problem]:
    """Turn a pydantic error into problems; `place` and `dotted` say where a path stands and how it is written."""
    details = error.errors(include_url=False)
    paths = [path_of(detail) for detail in details]
    problems = []
    for path, detail in zip(paths, details, strict=True):
        inside = any(len(other) > len(path) and other[: len(path)] == path for other in paths)
        if detail["type"] == "too_short" and inside:
            continue  # pydantic does not count entries that are wrong themselves
        problems.append(Problem(place(path), dotted(path), expectation(detail, kinds), value_of(detail, kinds)))
    return problems


def path_of(error: ErrorDetails) -> Path:
    """Return the key path of a pydantic error, without the kind that pydantic puts into paths of sources."""
    loc = error["loc"]
    if len(loc) > 2 and loc[0] == "sources" and loc[2] in SOURCE_KINDS:
        return (*loc[:2], *loc[3:])
    return loc


def value_of(error: ErrorDetails, kinds: dict[int, str]) -> str:
    """Return the offending value of a pydantic error; nothing for sections, which may hold secrets, and for secrets."""
    value = error.get("input", _NO_VALUE)
    field = field_at(path_of(error), kinds)
    hidden = value is _NO_VALUE or error["type"] in ("missing", "union_tag_not_found", "union_tag_invalid")
    if hidden or isinstance(value, (dict, Section, SecretStr)) or (field and is_secret(field.annotation)):
        return ""
    return shown(value)


def expectation(error: ErrorDetails, kinds: dict[int, str]) -> str:
    """Say what was expected instead, in the words of the configuration and not of pydantic."""
    path, kind = path_of(error), error["type"]
    context = error.get("ctx", {})
    field = field_at(path, kinds) or field_at(path[:-1], kinds)
    match kind:
        case "extra_forbidden":
            text = "unknown key" + nearest(str(path[-1]), _siblings(path, kinds))
        case "missing":
            meaning = f" ({field.description})" if field and field.description else ""
            text = f"missing; expected {type_text(field.annotation) if field else 'a value'}{meaning}"
        case "union_tag_not_found" | "union_tag_invalid":
            found = f", not {shown(context['tag'])}" if kind == "union_tag_invalid" else ""
            text = f"expected `kind`, one of {', '.join(SOURCE_KINDS)}{found}"
        case "literal_error":
            text = f"expected one of {context['expected']}"
        case "value_error":
            text = f"expected: {context['error']}"
        case "too_short":
            text = f"expected at least {context['min_length']}"
        case "model_type" | "model_attributes_type" | "dict_type":
            text = "expected a mapping (`key: value` lines)"
        case _ if kind in _BOUNDS:
            text = f"expected {_BOUNDS[kind].format(**context)}"
        case _ if field is not None and kind.startswith(("string", "int", "float", "bool", "tuple", "path")):
            text = f"expected {type_text(field.annotation)}"
        case _:
            text = f"expected: {error['msg']}"
    return text


def _siblings(path: Path, kinds: dict[int, str]) -> Iterable[str]:
    if len(path) == 1:
        return RagConfig.model_fields
    if len(path) == 3 and path[0] == "sources" and isinstance(path[1], int):
        return SOURCE_KINDS[kinds[path[1]]].model_fields if path[1] in kinds else ()
    parent = field_at(path[:-1], kinds)
    section = (section_of(parent.annotation) or entry_section_of(parent.annotation)) if parent else None
    return section.model_fields if section else ()
