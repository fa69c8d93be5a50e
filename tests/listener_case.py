"""Listening sockets of a server for tests, and what becomes of addresses that cannot be."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from connections import PEER_TIMEOUT, count_descriptors

from pycoronet.server._addresses import open_listeners
from pycoronet.server._unix_paths import unlink_path


def can_use_ipv6() -> bool:
    """Tell whether one socket can serve both families on the loopback here."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return socket.has_dualstack_ipv6()
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not can_use_ipv6(), reason="needs IPv6 and a dual stack")


class Listeners(ExitStack):
    """Opens listeners, whose sockets are closed and whose paths are removed in the end."""

    def __call__(self, addresses: Any, **options: Any) -> list[socket.socket]:
        """Do what open_listeners() does."""
        found = open_listeners(addresses, **options)
        for sock in found:
            self.callback(self._close, sock)
        return found

    @staticmethod
    def _close(sock: socket.socket) -> None:
        if sock.fileno() >= 0:
            unlink_path(sock)
        sock.close()


def dial(address: Any) -> socket.socket:
    """Return a client that is connected to what getsockname() has said."""
    family = socket.AF_UNIX
    if isinstance(address, tuple):
        family = socket.AF_INET if len(address) == 2 else socket.AF_INET6
    client = socket.socket(family)
    client.settimeout(PEER_TIMEOUT)
    client.connect(address)
    return client


def is_served(listener: socket.socket) -> bool:
    """Tell whether a client of a listener's address comes to that listener."""
    with dial(listener.getsockname()) as client:
        listener.settimeout(PEER_TIMEOUT)
        accepted, _ = listener.accept()
        with accepted:
            client.sendall(b"x")
            return accepted.recv(1) == b"x"


def leave_stale(path: Path) -> None:
    """Leave what a server leaves that was killed."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.fspath(path))
        sock.listen()


def refuse(address: Any, kind: type[OSError] = OSError, **options: Any) -> tuple[int | None, str]:
    """Return the errno and the text of the error; nothing may stay open."""
    before = count_descriptors()
    with pytest.raises(kind) as caught:
        open_listeners(address, **options)
    assert count_descriptors() == before
    text = caught.value.strerror
    assert "\n" not in text
    return caught.value.errno, text
