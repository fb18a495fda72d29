"""A digest of everything that a zygote has read when it is ready: the code, rag.yaml, and the declared tests.

Sizes and times of change are looked at, not contents, so that it costs some milliseconds at each run. Installed
packages are not looked at: after an upgrade, `rag dev` wants to be started again.
"""

import hashlib
import importlib.util
import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from dagster._core.secrets.env_file import get_env_var_dict

from rag_core.config_loader import find_config, load_config
from rag_core.errors import RagError

_PACKAGES = ("rag_core", "rag_assets", "resources", "io_managers", "sensors", "dbt_like_checks")
_ROOT = Path(__file__).resolve().parents[2]
_READ_AT_START = (".py", ".yml", ".yaml")


def code_digest(code_module: str, env: Mapping[str, str] | None = None) -> str:
    """Return 32 hexadecimal digits that change when code or configuration of the code location does.

    Args:
        code_module: Module of the code location.
        env: Environment in which it is loaded, by default the process's own; `.env` in the current folder adds to it.
    """
    # As Dagster does for its code servers and runs.
    env = {**(os.environ if env is None else env), **get_env_var_dict(str(Path.cwd()))}
    settings = tuple(sorted((name, value) for name, value in env.items() if name.startswith("RAG_")))
    rag_yaml = find_config(None, env)
    stamps = [*_stamps(_ROOT / package for package in _PACKAGES), *_module_stamps(code_module)]
    if rag_yaml is not None:
        stamps += _stamp(rag_yaml)
        folder = _tests_folder(rag_yaml, tuple(_stamp(rag_yaml)), settings)
        stamps += list(_stamps([folder])) if folder is not None else []
    return hashlib.sha256(repr((sorted(stamps), settings)).encode()).hexdigest()[:32]


_Stamp = tuple[str, int, int]


def _stamps(folders: "Iterator[Path] | list[Path]") -> Iterator[_Stamp]:
    for folder in folders:
        for parent, _, names in os.walk(folder):
            for name in names:
                if name.endswith(_READ_AT_START):
                    yield from _stamp(Path(parent, name))


def _stamp(path: Path) -> list[_Stamp]:
    try:
        found = path.stat()
    except OSError:
        return []
    return [(str(path), found.st_mtime_ns, found.st_size)]


def _module_stamps(name: str) -> list[_Stamp]:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return []
    return _stamp(Path(spec.origin)) if spec is not None and spec.origin else []


@lru_cache(maxsize=4)
def _tests_folder(rag_yaml: Path, stamp: tuple[_Stamp, ...], settings: tuple[tuple[str, str], ...]) -> Path | None:
    """Return the folder of own declared tests. A configuration that is wrong has none: its runs say what is wrong."""
    try:
        return load_config(rag_yaml, dict(settings), check_files=False).config.quality.tests
    except RagError:
        return None
