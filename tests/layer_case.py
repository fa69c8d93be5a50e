"""Layers for tests: one that leaves its name on what passes, one that fails."""

from __future__ import annotations

import socket
from typing import Any

from recorders import Recorder

import pycoronet
from pycoronet import TransportLayer


class Named(TransportLayer):
    """Puts its name around what passes, and notes what is called."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.calls: list[str] = []

    def started(self) -> None:
        self.calls.append("started")

    def wrap(self, data: bytes) -> bytes:
        self.calls.append("wrap")
        return self.name + b"(" + data + b")"

    def unwrap(self, data: bytes) -> bytes:
        self.calls.append("unwrap")
        return data.swapcase() if data else b""

    def finish(self) -> bytes:
        self.calls.append("finish")
        return self.name and self.name + b"."

    def on_clear(self) -> None:
        self.calls.append("on_clear")


class Failing(TransportLayer):
    """Raises in the methods named."""

    def __init__(self, *methods: str, error: type[BaseException] = ZeroDivisionError) -> None:
        self.cleared = 0
        for method in methods:
            setattr(self, method, self._fail)
        self.error = error

    def _fail(self, *arguments: object) -> bytes:
        raise self.error("by the layer")

    def on_clear(self) -> None:
        self.cleared += 1


def watch(conn: Any, *layers: TransportLayer, **options: Any) -> Recorder:
    """Give a connection layers and callbacks."""
    for layer in layers:
        conn.push_layer(layer)
    recorder = Recorder(**options)
    conn.set_callbacks(recorder)
    return recorder


def read_behind(peer: socket.socket, skipped: int) -> bytes:
    """Return all that comes behind so many bytes, while the connection sends."""
    received = b""
    peer.settimeout(0)
    while True:
        pycoronet.sleep(0)
        try:
            data = peer.recv(1 << 20)
        except BlockingIOError:
            continue
        if not data:
            return received[skipped:]
        received += data
