"""The keys of `rag.yaml`, read off the types: shared by environment overrides, provenance and the reference page.

A *path* is a tuple such as `("embedding", "model")`; the entries of `sources` are addressed by number inside the loader
and by name everywhere a person sees them.
"""

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from rag_core.config import FilesSource, JsonlSource, RagConfig, S3Source, SlackSource
from rag_core.config_base import Section

ENV_PREFIX = "RAG_"
ENV_SEPARATOR = "__"
SOURCE_KINDS: dict[str, type[Section]] = {
    "files": FilesSource,
    "s3": S3Source,
    "slack": SlackSource,
    "jsonl": JsonlSource,
}

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class ConfigKey:
    """One key of a section: its path from the root, and its declaration."""

    path: tuple[str, ...]
    field: FieldInfo

    @property
    def dotted(self) -> str:
        """The key as people write it, such as `embedding.model`."""
        return ".".join(self.path)

    @property
    def env_name(self) -> str:
        """The environment variable that overrides the key."""
        return ENV_PREFIX + ENV_SEPARATOR.join(part.upper() for part in self.path)

    @property
    def is_secret(self) -> bool:
        """Whether the key may come from the environment only."""
        return is_secret(self.field.annotation)


def options(annotation: Any) -> tuple[Any, ...]:
    """Return the alternatives of a union without None; a plain type is its own only alternative."""
    if get_origin(annotation) is Annotated:
        return options(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(found for option in get_args(annotation) if option is not type(None) for found in options(option))
    return (annotation,)


def section_of(annotation: Any) -> type[Section] | None:
    """Return the section that a field holds, or None for a value."""
    for option in options(annotation):
        if isinstance(option, type) and issubclass(option, Section):
            return option
    return None


def entry_section_of(annotation: Any) -> type[Section] | None:
    """Return the section that the entries of a list are; None for other lists, and for `sources`, of several kinds."""
    for option in options(annotation):
        if get_origin(option) in (tuple, list):
            entries = [entry for entry in options(get_args(option)[0]) if section_of(entry)]
            return section_of(entries[0]) if len(entries) == 1 else None
    return None


def is_secret(annotation: Any) -> bool:
    """Whether a field holds a secret."""
    return SecretStr in options(annotation)


def is_text(annotation: Any) -> bool:
    """Whether a field takes its text as it stands, so that `123` or `yes` in a variable stays text."""
    return not any(
        option in (int, float, bool) or section_of(option) or get_origin(option) in (dict, tuple, list)
        for option in options(annotation)
    )


def keys_of(section: type[Section], prefix: tuple[str, ...] = ()) -> Iterator[ConfigKey]:
    """Walk the keys of a section in order, sections inside it included; `sources` counts as one key."""
    for name, field in section.model_fields.items():
        key = ConfigKey((*prefix, name), field)
        inner = section_of(field.annotation)
        if inner is None:
            yield key
        else:
            yield from keys_of(inner, key.path)


def field_at(path: Path, kind_of_source: dict[int, str]) -> FieldInfo | None:
    """Find the declaration of a path; None if there is none.

    Args:
        path: Such as `("parsing", "archive", "max_depth")`, `("sources", 0, "root")`, or
            `("evaluation", "labelled", 0, "qrels")`; the path of an entry is declared by its list.
        kind_of_source: The kind of each source by its number, as far as known.
    """
    section: type[Section] | None = RagConfig
    found: FieldInfo | None = None
    rest = list(path)
    if len(rest) > 2 and rest[0] == "sources" and isinstance(rest[1], int):
        section = SOURCE_KINDS.get(kind_of_source.get(rest[1], ""))
        rest = rest[2:]
    for part in rest:
        if isinstance(part, int):
            section = entry_section_of(found.annotation) if found else None
        if section is None:
            return None
        if isinstance(part, int):
            continue
        found = section.model_fields.get(str(part))
        if found is None:
            return None
        section = section_of(found.annotation)
    return found


def type_text(annotation: Any) -> str:
    """Describe a type for the reference and for errors, such as `whole number` or `fp32 \\| bf16`."""
    names = {str: "text", int: "whole number", float: "number", bool: "true or false", SecretStr: "secret text"}
    texts = []
    for option in options(annotation):
        origin = get_origin(option)
        if origin is Literal:
            texts.append(", ".join(f"`{value}`" for value in get_args(option)))
        elif origin in (tuple, list):
            texts.append(f"list of {type_text(get_args(option)[0])}")
        elif origin is dict:
            texts.append("mapping")
        elif section_of(option):
            texts.append("section")
        else:
            texts.append(names.get(option, "path"))
    return " or ".join(dict.fromkeys(texts))
