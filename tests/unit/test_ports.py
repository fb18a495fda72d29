"""Servers of tests begin on ports that nobody has by then."""

import socket
from pathlib import Path

import pytest

from tests.ports import PORTS, free_port

_GIVEN = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST_OF_LINUX = 32_768


def test_a_port_is_free() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))
        server.listen()


def test_a_port_that_is_taken_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    first = free_port()
    with socket.socket() as server:
        server.bind(("127.0.0.1", first))
        monkeypatch.setattr("tests.ports.PORTS", range(first, first + 100))
        monkeypatch.setattr("tests.ports._TRIES", 100)
        assert free_port() in range(first + 1, first + 100)


def test_no_connection_is_given_one_of_them() -> None:
    if not _GIVEN.exists():
        pytest.skip("only Linux tells which ports it gives to connections")
    first, last = (int(number) for number in _GIVEN.read_text().split())
    if first < _FIRST_OF_LINUX:
        pytest.skip(f"this machine gives connections ports from {first} on")
    assert not set(PORTS) & set(range(first, last + 1))
