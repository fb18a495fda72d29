"""Writes what the overlays come to, as one file each, for `kubectl apply -f` and for review; with `--check` it says
whether they are current. Rendering needs kubectl; the digest in a file, of what it was rendered from, needs nothing.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).resolve().parent
RENDERED: Final = FOLDER / "rendered"
OVERLAYS: Final = ("small", "large")
_HEAD: Final = "# Rendered from deploy/k8s/overlays/{size} by `python -m deploy.k8s.render`. Inputs: {digest}\n"


def inputs_digest(size: str) -> str:
    """Return the SHA-256 of all that a rendered file is made from: base, parts, the overlay, and Dagster's files."""
    others = {FOLDER / "overlays" / other for other in OVERLAYS if other != size} | {RENDERED, FOLDER / "examples"}
    found = hashlib.sha256()
    dagster = FOLDER.parent / "dagster"
    for path in [dagster / "kustomization.yaml", dagster / "cluster.yaml", *sorted(FOLDER.rglob("*"))]:
        if path.suffix in {".yaml", ".conf"} and not others & set(path.parents):
            found.update(path.relative_to(FOLDER.parent).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()


def has_kubectl() -> bool:
    """Tell whether this machine can render: kubectl of 1.27 or later is there."""
    if shutil.which("kubectl") is None:
        return False
    told = subprocess.run(["kubectl", "version", "--client"], capture_output=True, text=True, check=False).stdout
    return "Kustomize Version: v5" in told


def rendered(size: str) -> str:
    """Render an overlay.

    Raises:
        subprocess.CalledProcessError: kubectl refuses it; its standard error says why.
    """
    command = ["kubectl", "kustomize", str(FOLDER / "overlays" / size)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return _HEAD.format(size=size, digest=inputs_digest(size)) + text


def differing() -> list[str]:
    """Name the rendered files that are not current; their text is compared where it can be rendered."""
    found = []
    for size in OVERLAYS:
        path = RENDERED / f"{size}.yaml"
        there = path.read_text(encoding="utf-8") if path.exists() else ""
        is_current = there.startswith(_HEAD.format(size=size, digest=inputs_digest(size)))
        if not is_current or (has_kubectl() and there != rendered(size)):
            found.append(path.name)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Write the files, or say with `--check` which are not current; the exit status is 1 then."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only")
    if parser.parse_args(arguments).check:
        names = differing()
        for name in names:
            sys.stderr.write(f"{RENDERED / name} is not current; run python -m deploy.k8s.render\n")
        return 1 if names else 0
    if not has_kubectl():
        sys.stderr.write("rendering needs kubectl 1.27 or later: https://kubernetes.io/docs/tasks/tools\n")
        return 1
    RENDERED.mkdir(exist_ok=True)
    for size in OVERLAYS:
        (RENDERED / f"{size}.yaml").write_text(rendered(size), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
