"""Starts a resident worker: takes its lock, listens, lets the caller go on, and serves."""

import argparse
import logging
import os
import socket
import sys
import time
from pathlib import Path
from typing import Final

from rag_core.embedding.resident.files import ResidentFiles, identity, socket_address
from rag_core.index.lite_files import try_lock

_BACKLOG: Final = 64


def main(argv: list[str] | None = None) -> int:
    """Run the worker; the caller's process ends once the worker listens, or when there is one already."""
    parser = argparse.ArgumentParser(prog="python -m rag_core.embedding.resident", description=__doc__)
    parser.add_argument("--socket", type=Path, required=True, help="where to listen; its lock and log lie beside it")
    parser.add_argument("--idle-s", type=float, default=300.0, help="end this long after the last job")
    arguments = parser.parse_args(argv)
    own_identity = identity(os.environ)  # before anything is imported that reads or sets variables
    files = ResidentFiles(arguments.socket.absolute())
    files.socket.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _lock(files)
    if descriptor is None:
        return 0
    listener = _listen(files)
    # Lock and socket live on in the child; the parent's end tells the client that it can connect, and leaves no zombie.
    if os.fork():
        os._exit(0)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(message)s")
    logging.getLogger("sentence_transformers").setLevel(logging.WARNING)

    from rag_core.embedding.resident.server import ResidentWorker

    ResidentWorker(files, listener, identity=own_identity, idle_s=arguments.idle_s).run()
    return 0


def _lock(files: ResidentFiles) -> int | None:
    """Take the worker's lock; a client that merely looks at it holds it for an instant, hence the patience."""
    for _ in range(20):
        descriptor = try_lock(files.alive)
        if descriptor is not None:
            return descriptor
        time.sleep(0.05)
    return None


def _listen(files: ResidentFiles) -> socket.socket:
    """Listen at the socket, for this user only; what a killed worker left there is replaced."""
    files.socket.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        with socket_address(files.socket) as address:
            listener.bind(address)
    finally:
        os.umask(mask)
    listener.listen(_BACKLOG)
    return listener


if __name__ == "__main__":
    sys.exit(main())
