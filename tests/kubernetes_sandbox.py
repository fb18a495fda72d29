"""How the stand-in runs a container: on a root file system of its own where this machine allows it, else as a process.

The image is this machine, in an overlay: read-only where the pod asks for that, with its volumes mounted, as its user
and without capabilities. That needs root and `unshare`; without them a container sees the machine as it is.
"""

import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[1]
IMAGE_ENV = {"PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/tmp"}
"""What a worker image sets: its Python comes first. `rag_core` is installed in it."""

_UNSHARE = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]


@cache
def has_sandbox() -> bool:
    """Whether containers get a file system of their own here."""
    if shutil.which("unshare") is None or shutil.which("setpriv") is None:
        return False
    folder = scratch()
    command = [sys.executable, "-c", "import os; assert os.getuid() == 10001"]
    security = {"runAsUser": 10001, "readOnlyRootFilesystem": True}
    argv = sandboxed(command, folder, mounts={}, security=security)
    try:
        return subprocess.run(argv, capture_output=True, timeout=30, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def scratch() -> Path:
    """Return a folder for one container, on memory where there is: an overlay cannot lie in what it covers."""
    shared = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="rag-pod-", dir=shared if shared.is_dir() else None))


def sandboxed(
    command: list[str], folder: Path, mounts: Mapping[str, tuple[Path, bool]], security: Mapping[str, Any]
) -> list[str]:
    """Return the command line that runs a container's command in its own root.

    Args:
        command: The container's.
        folder: A scratch folder of its own.
        mounts: By path in the container: the folder of this machine, and whether it is read-only.
        security: The container's security context, the pod's merged in.
    """
    root = folder / "root"
    lines = ["set -e", f"mkdir -p {folder}/upper {folder}/work {root}"]
    options = f"lowerdir=/,upperdir={folder}/upper,workdir={folder}/work"
    lines += [f"mount -t overlay overlay -o {options} {root}", f"cd {root}"]
    # An interpreter under /root is part of the image, whose users may all read it.
    lines += ["chmod o+x root", "mount --rbind /dev dev", "mount -t proc proc proc"]
    for path, (source, is_read_only) in sorted(mounts.items()):
        inside, outside = shlex.quote(path.lstrip("/")), shlex.quote(str(source))
        lines += [f"mkdir -p {inside}", f"mount --bind {outside} {inside}"]
        lines += [f"mount -o remount,bind,ro {inside}"] if is_read_only else []
    if security.get("readOnlyRootFilesystem"):
        lines += ["mount -o remount,ro ."]
    uid = security.get("runAsUser", 0)
    gid = security.get("runAsGroup", uid)
    drop = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
    if not security.get("allowPrivilegeEscalation", True):
        drop += ["--no-new-privs"]
    if "ALL" in security.get("capabilities", {}).get("drop", []):
        drop += ["--inh-caps=-all", "--bounding-set=-all"]
    chroot = shutil.which("chroot", path="/usr/sbin:/usr/bin:/sbin:/bin")  # not on every container's PATH
    lines += [f"exec {chroot} . " + shlex.join(drop + command)]
    return [*_UNSHARE, "sh", "-c", "\n".join(lines)]
