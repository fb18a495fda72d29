"""API keys of the service: how a key is made and hashed, and the YAML list that the service reads.

- id: ci-bot
  hash: 5d1c...  # SHA-256 of the key, 64 hex digits
  principals: [group:eng]
  expires_at: 2027-01-01T00:00:00Z

Several entries may have one id: that is how a key is replaced without a gap. What writes the list is in
`rag_core.access_key_file`; who is let in with a key is decided in `serving/access`.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final

import yaml
from pydantic import AwareDatetime, Field, StringConstraints, ValidationError

from rag_core.config_base import Section
from rag_core.errors import ConfigError

PREFIX: Final = "rag_"
"""Begins every key, so that scanners for leaked secrets recognise one."""

_RANDOM_BYTES: Final = 32

Principal = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^\S+$")]


class KeyEntry(Section):
    """One key, as the service knows it. The key itself is nowhere but with its holder."""

    id: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$", description="1 to 64 letters, digits, dots, - or _")
    hash: str = Field(pattern=r"^[0-9a-f]{64}$", description="the SHA-256 of the key, 64 hex digits in lower case")
    principals: tuple[Principal, ...] = Field(
        description="a list of names that documents admit, such as [group:eng]; [] for none"
    )
    expires_at: AwareDatetime | None = Field(
        default=None, description="a time with its zone, such as 2027-01-01T00:00:00Z"
    )
    note: str = Field(default="", description="a text")

    def is_expired(self, now: datetime) -> bool:
        """Tell whether the key no longer opens anything."""
        return self.expires_at is not None and self.expires_at <= now


@dataclass(frozen=True)
class KeyRing:
    """All keys that are known, expired ones as well."""

    entries: tuple[KeyEntry, ...] = ()

    def find(self, key: str, now: datetime) -> KeyEntry | None:
        """Return the entry of a key that has not expired.

        Every entry is compared, each in constant time, whether one matched or not: how long it takes says nothing of
        how near a guess was, nor of whose key it is.
        """
        wanted = hash_of(key)
        found: KeyEntry | None = None
        for entry in self.entries:
            if hmac.compare_digest(entry.hash, wanted):
                found = entry
        return None if found is None or found.is_expired(now) else found


def new_key() -> str:
    """Make a key from 256 random bits."""
    return PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def hash_of(key: str) -> str:
    """Return the SHA-256 of a key in hex.

    A fast hash is right here. Slow ones (argon2, bcrypt) protect what people choose and machines can guess; nobody
    guesses 256 random bits, and a slow hash would cost every request its time, and an attacker nothing.
    """
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def parse_keys(text: str, *, where: str) -> tuple[KeyEntry, ...]:
    """Read a list of keys.

    Args:
        text: YAML. An empty text is an error, as a file is empty for a moment while it is written; no keys is `[]`.
        where: What messages call it: the file, or the variable.

    Raises:
        ConfigError: Something is wrong with it. All problems are listed, none with a value, which might be a key.
    """
    try:
        data = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{where}{line}: not valid YAML: {getattr(error, 'problem', None) or 'unreadable'}") from None
    except ValueError:  # a date such as 2027-13-01
        raise ConfigError(f"{where}: a value cannot be read; times are written as 2027-01-01T00:00:00Z") from None
    if not isinstance(data, list):
        raise ConfigError(
            f"{where}: expected a list of keys, each `- id: ...` (no keys: []); `rag keys new` writes one"
        )
    entries, problems = _checked(data)
    if problems:
        raise ConfigError("\n".join([f"{where}: the API keys cannot be used", *(f"  {line}" for line in problems)]))
    return entries


def _checked(data: Sequence[Any]) -> tuple[tuple[KeyEntry, ...], list[str]]:
    """Return the valid entries, and what is wrong with the others."""
    entries: list[KeyEntry] = []
    problems: list[str] = []
    numbers: dict[str, int] = {}
    for number, item in enumerate(data, start=1):
        named = item.get("id") if isinstance(item, dict) else None
        place = f"entry {number} ({named})" if isinstance(named, str) and len(named) <= 64 else f"entry {number}"
        try:
            entry = KeyEntry.model_validate(item)
        except ValidationError as error:
            problems += [f"{place}: {line}" for line in _said(error)]
            continue
        first = numbers.setdefault(entry.hash, number)
        if first != number:
            problems.append(f"{place}: hash: the same key as entry {first}; expected a key of its own")
        entries.append(entry)
    return tuple(entries), problems


def _said(error: ValidationError) -> Iterator[str]:
    """Say what was expected of each key, once, without what was there."""
    keys: dict[str, str] = {str(detail["loc"][0]) if detail["loc"] else "": detail["type"] for detail in error.errors()}
    for key, kind in keys.items():
        field = KeyEntry.model_fields.get(key)
        if not key:
            yield f"expected keys and values: {_listed(KeyEntry.model_fields)}"
        elif field is None:
            yield f"{key}: unknown key; expected {_listed(KeyEntry.model_fields)}"
        else:
            yield f"{key}: {'missing; ' if kind == 'missing' else ''}expected {field.description}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


class _Loader(yaml.SafeLoader):
    """Refuses a key that is written twice: which of two lists of principals holds must not depend on their order."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping without repeated keys."""
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value} is there twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)
