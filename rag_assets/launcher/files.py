"""Files in DAGSTER_HOME that the launcher and its zygote share. Locks are `flock`s: none outlives its holder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_KEPT_OUTPUTS = 200


@dataclass(frozen=True, slots=True)
class ZygoteFiles:
    """Addresses of the files of one DAGSTER_HOME.

    Attributes:
        home: DAGSTER_HOME.
    """

    home: Path

    @property
    def folder(self) -> Path:
        """Folder of all of them."""
        return self.home / "launcher"

    @property
    def socket(self) -> Path:
        """Where the zygote listens; readable and writable by its owner only."""
        return self.folder / "zygote.sock"

    @property
    def start_lock(self) -> Path:
        """Held while a launcher looks for or starts the zygote."""
        return self.folder / "start.lock"

    @property
    def zygote_lock(self) -> Path:
        """Held by the zygote for as long as it lives; its content is its process id."""
        return self.folder / "zygote.lock"

    @property
    def lease(self) -> Path:
        """Held, shared, by each `rag dev`: the zygote stays as long as there is one, and goes with the last."""
        return self.folder / "lease"

    @property
    def log(self) -> Path:
        """Output of the zygote."""
        return self.folder / "zygote.log"

    @property
    def outputs(self) -> Path:
        """Folder with the output of each run's process, outside of its steps."""
        return self.folder / "runs"

    def output(self, run_id: str) -> Path:
        """Output of a run's process. Made by who starts the run, and only once: it is also the claim to do so."""
        return self.outputs / f"{run_id}.log"

    def claim(self, run_id: str) -> int:
        """Take the right to start a run, and return the descriptor of its output file.

        Raises:
            FileExistsError: Somebody else has started it.
        """
        self.outputs.mkdir(parents=True, exist_ok=True)
        return os.open(self.output(run_id), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)

    def sweep(self) -> None:
        """Remove all outputs but the newest."""
        found = (
            sorted(self.outputs.glob("*.log"), key=lambda path: path.stat().st_mtime) if self.folder.exists() else []
        )
        for path in found[:-_KEPT_OUTPUTS]:
            path.unlink(missing_ok=True)


@contextmanager
def held_lease(files: ZygoteFiles) -> Iterator[None]:
    """Keep the zygote, once there is one, while the block runs."""
    files.folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(files.lease, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)
