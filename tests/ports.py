"""Ports for the servers of tests."""

import socket
from random import SystemRandom

PORTS = range(20_000, 32_768)
"""Below what Linux gives to clients' connections, and to servers that take any port (ip_local_port_range).

From above, a port that was free may be some connection's own by the time its server starts.
"""

_TRIES = 100
_RANDOM = SystemRandom()  # processes that run side by side draw different ones, whatever a test seeds


def is_free(port: int) -> bool:
    """Tell whether nothing listens on a port, and no connection to it is there, ended ones that linger included."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Return a port that nothing listens on, and that nobody takes by chance until its server does.

    Raises:
        OSError: no port was free in many tries.
    """
    for port in _RANDOM.sample(PORTS, _TRIES):
        if is_free(port):
            return port
    raise OSError(f"none of {_TRIES} ports from {PORTS.start} to {PORTS.stop - 1} is free")
