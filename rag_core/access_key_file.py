"""Files of API keys: read, and added to without harm to what is in them."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import yaml

from rag_core.access_keys import KeyEntry, parse_keys
from rag_core.errors import ConfigError

_MAX_BYTES: Final = 16 * 1024 * 1024


def read_key_file(path: Path) -> tuple[KeyEntry, ...]:
    """Read a file of keys.

    Raises:
        ConfigError: It cannot be read, or something is wrong in it.
    """
    return parse_keys(_text(path), where=str(path))


def append_key(path: Path, entry: KeyEntry) -> None:
    """Add an entry at the end; the file is made if it is not there, and only its owner may read it afterwards.

    Comments and order stay. A reader sees the old file or the new one, and two writers at once both get in.

    Raises:
        ConfigError: The file holds something else than keys, or cannot be written.
    """
    path = path.resolve()  # a link stays one, and points at the new file
    with _locked(path.parent):
        old = _text(path) if path.exists() else ""
        if old.strip() and parse_keys(old, where=str(path)):
            text = old if old.endswith("\n") else old + "\n"
        else:  # nothing in it but comments, and perhaps `[]`
            text = "".join(line for line in old.splitlines(keepends=True) if line.startswith("#"))
        text += entry_yaml(entry)
        parse_keys(text, where=str(path))  # an entry cannot follow a list in brackets; nor may it be there already
        _replace(path, text)


def entry_yaml(entry: KeyEntry) -> str:
    """Write an entry as an item of the list."""
    values = entry.model_dump(exclude_defaults=True)
    values["principals"] = list(entry.principals)
    if entry.expires_at is not None:
        values["expires_at"] = entry.expires_at
    return yaml.safe_dump([values], sort_keys=False, allow_unicode=True, default_flow_style=None)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"the API keys in {path} cannot be read: {error.strerror}") from error
    if len(content) > _MAX_BYTES:
        raise ConfigError(f"the API keys in {path} cannot be read: expected at most {_MAX_BYTES:,} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: expected a list of API keys in UTF-8; `rag keys new` writes one") from None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other writers out; the lock is on the folder, as the file itself is replaced."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ConfigError(f"the folder {folder} for API keys cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(path: Path, text: str) -> None:
    """Put a file in place of another at once; `mkstemp` makes it for its owner only (0600)."""
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(f"the API keys in {path} cannot be written: {error.strerror}") from error
