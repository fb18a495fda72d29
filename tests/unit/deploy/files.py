"""Where the files of a deployment are, and how they are read."""

import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from deploy.k8s import render

ROOT: Final = Path(__file__).resolve().parents[3]
DEPLOY: Final = ROOT / "deploy"
BIN: Final = Path(sys.executable).parent

K8S: Final = DEPLOY / "k8s"
VERSIONS: Final = ("1.30", "1.37")
"""The oldest and the newest Kubernetes that manifests are checked against."""

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


@cache
def stack(size: str) -> list[Manifest]:
    """Return what an overlay comes to; all tests share it, and none may change it."""
    return list(manifests(render.RENDERED / f"{size}.yaml"))


def of_kind(size: str, *kinds: str) -> dict[str, Manifest]:
    """Return the objects of some kinds in a stack, by name."""
    return {one["metadata"]["name"]: one for one in stack(size) if one["kind"] in kinds}


def pods(size: str) -> dict[str, Manifest]:
    """Return the pod specifications of a stack: of its deployments, and of Spark's executors."""
    templates = {name: one["spec"]["template"] for name, one in of_kind(size, "Deployment").items()}
    executor = of_kind(size, "ConfigMap")["rag-spark"]["data"]["spark-executor.yaml"]
    return {**templates, "rag-spark-executor": yaml.safe_load(executor)}
