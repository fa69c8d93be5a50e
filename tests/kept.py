"""What the tests that call each public name call it with; it ends when the call is over."""

from __future__ import annotations

import socket
from contextlib import ExitStack, suppress
from typing import Any

import pycoronet
from pycoronet import RateLimit, sk_conn, sleep

LOCAL = ("127.0.0.1", 0)
SLOW = RateLimit(read_rate=1000)
INPUT = b"\0\0\0\1x" + b"line\n" * 9  # a frame, then lines


class Called:
    """The function that is called: it does nothing, or it raises."""

    raises = False

    def __call__(self, *_: object) -> None:
        if self.raises:
            raise LookupError


nothing = Called()


class Kept:
    """Makes what a case needs, and ends it when the round is over."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack

    def socket(self) -> socket.socket:
        """Return a socket with input."""
        left, right = socket.socketpair()
        self.stack.enter_context(left)
        self.stack.enter_context(right)
        right.send(INPUT)
        return left

    def conn(self) -> Any:
        """Return a connection with input."""
        conn = sk_conn(self.socket())
        self.stack.callback(conn.abort)
        return conn

    def listener(self) -> Any:
        """Return a listener with a connection in its queue."""
        listener = pycoronet.listen(LOCAL)
        self.stack.callback(listener.abort)
        self.stack.enter_context(socket.create_connection(listener.getsockname()))
        return listener

    def server(self) -> Any:
        """Return a server that is not started."""
        server = pycoronet.Server(LOCAL, nothing)
        self.stack.callback(server.close)
        return server

    def grouped(self) -> Any:
        """Return a rate group with a member."""
        group = pycoronet.RateGroup(SLOW)
        group.add(self.conn())
        return group

    def layer(self) -> Any:
        """Return a layer on a connection."""
        layer = pycoronet.TransportLayer()
        self.conn().push_layer(layer)
        return layer

    def queue(self, kind: Any) -> Any:
        """Return a queue with something in it."""
        queue = kind()
        queue.put(1)
        return queue

    def held(self, lock: Any) -> Any:
        """Return the lock, locked."""
        lock.acquire()
        return lock

    def entered(self, thing: Any) -> Any:
        """Return what is entered, and left in the end."""
        thing.__enter__()

        def leave() -> None:
            with suppress(RuntimeError):
                thing.__exit__(None, None, None)

        self.stack.callback(leave)
        return thing

    def cancelled_in_the_end(self, handle: Any) -> Any:
        """Return the handle."""
        self.stack.callback(handle.cancel)
        return handle


def use(scope: Any) -> None:
    with scope:
        sleep(0)
