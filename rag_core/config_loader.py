"""Loads `rag.yaml`: finds it, lays environment variables over it, checks everything, reports all that is wrong at once.

What the keys are is in `rag_core.config`. Nothing here opens a connection; the checks look at the local disk only.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr

from rag_core.config import RagConfig
from rag_core.config_base import Section
from rag_core.config_draft import Draft
from rag_core.config_env import overlay
from rag_core.config_keys import Path as KeyPath
from rag_core.errors import ConfigError

FILE_NAME = "rag.yaml"
_PROJECT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class LoadedConfig:
    """A valid configuration and where it is from.

    Attributes:
        config: The effective values; local paths are absolute.
        path: The file; None if everything came from the environment.
        provenance: Origin of every key (`default`, `rag.yaml:12`, `env RAG_STORE__ROOT`) by dotted key, with sources by
            name: `sources.handbook.root`.
    """

    config: RagConfig
    path: Path | None
    provenance: dict[str, str]


def load_config(
    path: Path | None = None, env: Mapping[str, str] | None = None, *, check_files: bool = True
) -> LoadedConfig:
    """Load the configuration.

    Args:
        path: The file. Without it: RAG_CONFIG, then `rag.yaml` in the current folder, then the project's own, which is
            beside `definitions.py`.
        env: Environment variables; by default those of the process.
        check_files: Whether source roots, tokenizer and model must be on this machine's disk.

    Raises:
        ConfigError: Something is wrong; the message lists every problem with place, key, value and what was expected.
    """
    env = os.environ if env is None else env
    draft = Draft(find_config(path, env))
    draft.read()
    draft.refuse_secrets()
    draft.env, unknown = overlay(draft.data, env)
    draft.problems += unknown
    if draft.file is None and not draft.env:
        raise ConfigError(
            f"no configuration: no {FILE_NAME} in {Path.cwd()} nor in {_PROJECT}; write one or name it in RAG_CONFIG"
        )
    draft.make_paths_absolute()
    if check_files:
        draft.check_paths()
    config = draft.validate(check_files=check_files)
    return LoadedConfig(config, draft.file, dict(_provenance(config, draft)))


def find_config(path: Path | None, env: Mapping[str, str]) -> Path | None:
    """Return the absolute path of the file to read; None if none is named and none lies where they usually lie."""
    named = path or env.get("RAG_CONFIG")
    if named:
        return Path(named).expanduser().absolute()
    usual = (Path.cwd() / FILE_NAME, _PROJECT / FILE_NAME)
    return next((candidate for candidate in usual if candidate.is_file()), None)


def describe(loaded: LoadedConfig) -> list[tuple[str, str, str]]:
    """List every effective key with its value as text, secrets masked, and its origin, in the order of the types."""
    return [(key, _text(value), loaded.provenance[key]) for _, key, value in _leaves(loaded.config)]


def _leaves(config: RagConfig) -> Iterator[tuple[KeyPath, str, Any]]:
    """Yield path, dotted key and value of every key that holds a value."""

    def walk(section: BaseModel, path: KeyPath, dotted: str) -> Iterator[tuple[KeyPath, str, Any]]:
        for name in type(section).model_fields:
            value = getattr(section, name)
            here, key = (*path, name), f"{dotted}{name}"
            if isinstance(value, Section):
                yield from walk(value, here, f"{key}.")
            elif here == ("sources",):
                for number, source in enumerate(value):
                    yield from walk(source, (*here, number), f"{key}.{source.name}.")
            elif isinstance(value, tuple) and value and isinstance(value[0], Section):
                for number, entry in enumerate(value):
                    yield from walk(entry, (*here, number), f"{key}[{number}].")
            else:
                yield here, key, value

    return walk(config, (), "")


def _provenance(config: RagConfig, draft: Draft) -> Iterator[tuple[str, str]]:
    for path, key, _ in _leaves(config):
        yield key, draft.origin(path) if _is_set(draft.data, path) else "default"


def _is_set(data: Any, path: KeyPath) -> bool:
    for part in path:
        if isinstance(data, dict) and part not in data:
            return False
        data = data[part]
    return True


def _text(value: Any) -> str:
    if isinstance(value, SecretStr):
        return "********"
    if isinstance(value, str | Path):
        return str(value)
    return json.dumps(value, ensure_ascii=False)
