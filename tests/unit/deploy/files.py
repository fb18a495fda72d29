"""Where the files of a deployment are, and how they are read."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).resolve().parents[3]
DEPLOY: Final = ROOT / "deploy"
BIN: Final = Path(sys.executable).parent

Manifest = dict[str, Any]


def read(path: Path) -> Any:
    """Read a YAML file of one document."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def manifests(path: Path) -> Iterator[Manifest]:
    """Read a YAML file of several documents."""
    yield from (one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run one of the environment's own programs in the project's folder."""
    return subprocess.run([str(BIN / command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
