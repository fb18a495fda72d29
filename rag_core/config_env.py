"""Environment variables over the file: `RAG_<SECTION>__<KEY>`, sources by name, values typed like YAML scalars."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from rag_core.config import RagConfig
from rag_core.config_keys import (
    ENV_PREFIX,
    ENV_SEPARATOR,
    SOURCE_KINDS,
    Path,
    field_at,
    is_secret,
    is_text,
    keys_of,
    section_of,
)
from rag_core.config_problems import Problem, nearest
from rag_core.config_yaml import read_scalar

RESERVED = frozenset({"RAG_CONFIG", "RAG_CORPORA", "RAG_CRASH_AT"})


def kinds_of(data: Mapping[str, Any]) -> dict[int, str]:
    """Return the kind of each source by its number, of those that name a known kind."""
    sources = data.get("sources")
    entries = enumerate(sources) if isinstance(sources, list) else ()
    kinds = {number: entry.get("kind") for number, entry in entries if isinstance(entry, dict)}
    return {number: kind for number, kind in kinds.items() if isinstance(kind, str) and kind in SOURCE_KINDS}


def overlay(data: dict[str, Any], env: Mapping[str, str]) -> tuple[dict[Path, str], list[Problem]]:
    """Put the variables over the data, in place.

    An empty variable counts as not set. A whole section may be given as YAML (`RAG_SOURCES='[{...}]'`), and single keys
    over it. A key inside something that is not a mapping is left for validation to report.

    Returns:
        The variable of each path that was set, and the variables that name no key.
    """
    origins: dict[Path, str] = {}
    problems: list[Problem] = []
    for name, text in _candidates(env):
        found = _resolve(name, data)
        if isinstance(found, Problem):
            problems.append(found)
            continue
        field = field_at(found, kinds_of(data))
        plain = field is not None and (is_secret(field.annotation) or is_text(field.annotation))
        if _assign(data, found, text if plain else read_scalar(text)):
            origins[found] = name
    return origins, problems


def _candidates(env: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the set variables that address a key, sections before the keys inside them."""
    names = [name for name in env if name.startswith(ENV_PREFIX) and name not in RESERVED and env[name] != ""]
    for name in sorted(names, key=lambda name: (name.count(ENV_SEPARATOR), name)):
        first = _parts(name)[0]
        if first in RagConfig.model_fields or _with_single_underscores(name) is not None:
            yield name, env[name]


def _parts(name: str) -> list[str]:
    return name.removeprefix(ENV_PREFIX).lower().split(ENV_SEPARATOR)


def _with_single_underscores(name: str) -> str | None:
    """Return the variable that was meant by one written with single underscores, such as RAG_STORE_ROOT."""
    return {re.sub("_+", "_", key.env_name): key.env_name for key in keys_of(RagConfig)}.get(name.upper())


def _resolve(name: str, data: dict[str, Any]) -> Path | Problem:
    place, parts = f"env {name}", _parts(name)
    if parts[0] not in RagConfig.model_fields:
        return Problem(place, "", f"unknown variable; did you mean {_with_single_underscores(name)}?")
    path: Path = tuple(parts)
    if parts[0] == "sources" and len(parts) > 1:
        names = _source_names(data)
        if parts[1] not in names:
            return Problem(place, "", f"there is no source {parts[1]!r}" + nearest(parts[1], names))
        path = ("sources", names[parts[1]], *parts[2:])
        if len(path) == 2 or path[1] not in kinds_of(data):
            return path
    if field_at(path, kinds_of(data)) is None:
        return Problem(place, "", "unknown variable" + nearest(name, _known_names(path, parts, data)))
    return path


def _source_names(data: Mapping[str, Any]) -> dict[str, int]:
    sources = data.get("sources")
    entries = enumerate(sources) if isinstance(sources, list) else ()
    return {str(entry["name"]): number for number, entry in entries if isinstance(entry, dict) and "name" in entry}


def _known_names(path: Path, parts: list[str], data: Mapping[str, Any]) -> list[str]:
    if isinstance(path[1], int):
        prefix = tuple(parts[:2])
        return [key.env_name for key in keys_of(SOURCE_KINDS[kinds_of(data)[path[1]]], prefix)]
    section = section_of(RagConfig.model_fields[parts[0]].annotation)
    return [key.env_name for key in keys_of(section, (parts[0],))] if section else [f"{ENV_PREFIX}{parts[0].upper()}"]


def _assign(data: dict[str, Any], path: Path, value: Any) -> bool:
    here: Any = data
    for part in path[:-1]:
        if isinstance(part, str) and isinstance(here, dict) and here.get(part) is None:
            here[part] = {}
        here = here[part]
        if not isinstance(here, (dict, list)):
            return False
    if isinstance(here, dict) or isinstance(path[-1], int):
        here[path[-1]] = value
        return True
    return False
