"""A keep-alive "Hello World" over HTTP on libreact's calls: a reactor and its callbacks.

    python examples/libreact_hello.py [PORT]      # 3000; 0 takes a free one

No coroutine is in it: the reactor tells that a descriptor has news, the callback takes what
is there and answers. Ctrl-C stops it: every client is told on_shutdown and closed.
"""

import os
import signal
import socket
import sys

from pycoronet import ClosedError
from pycoronet.libreact import (
    Reactor,
    reactor_add,
    reactor_close,
    reactor_conn,
    reactor_review,
    reactor_stop,
)

BACKLOG = 1024
MAX_HEAD_SIZE = 16384
BODY = b"Hello World!\r\n"
RESPONSE = (
    b"HTTP/1.1 200 OK\r\n"
    b"Content-Length: %d\r\n"
    b"Content-Type: text/plain\r\n"
    b"Connection: keep-alive\r\n"
    b"Keep-Alive: timeout=2\r\n"
    b"\r\n%s" % (len(BODY), BODY)
)


class Hello:
    """The server: its listening socket, and the beginnings of requests."""

    def __init__(self, port: int) -> None:
        self.server = socket.create_server(("127.0.0.1", port), backlog=BACKLOG)
        self.server.setblocking(False)
        self.reactor = Reactor(on_data=self.on_data, on_close=self.on_close)
        self.heads: dict[int, bytes] = {}

    def on_data(self, reactor: Reactor, fd: int) -> None:
        """Accept, or read and answer. By edges: until nothing is left."""
        if fd == self.listener:
            self.accept_all()
        else:
            self.answer_all(fd)

    def accept_all(self) -> None:
        """Take every client that waits."""
        while True:
            try:
                client, _ = self.server.accept()
            except BlockingIOError:
                return
            except OSError as error:
                print("accept:", error, file=sys.stderr)
                return
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            fd = client.detach()
            self.heads[fd] = b""
            reactor_add(self.reactor, fd)

    def answer_all(self, fd: int) -> None:
        """Answer each whole request that has come; keep the beginning of the next."""
        conn = reactor_conn(self.reactor, fd)
        try:
            while data := conn.take(65536):
                *requests, self.heads[fd] = (self.heads[fd] + data).split(b"\r\n\r\n")
                for request in requests:
                    conn.write(RESPONSE)
                    if b"\r\nconnection: close" in request.lower():
                        reactor_close(self.reactor, fd)
                        return
                if len(self.heads[fd]) > MAX_HEAD_SIZE:
                    conn.abort()
        except (ClosedError, ConnectionError):
            reactor_close(self.reactor, fd)

    def on_close(self, reactor: Reactor, fd: int) -> None:
        """Forget what had come of a request."""
        self.heads.pop(fd, None)

    def run(self) -> None:
        """Serve until Ctrl-C."""
        signal.signal(signal.SIGINT, lambda number, frame: reactor_stop(self.reactor))
        self.listener = os.dup(self.server.fileno())
        host, port = self.server.getsockname()
        reactor_add(self.reactor, self.listener)
        print(f"http://{host}:{port}/ says hello; Ctrl-C ends it", file=sys.stderr, flush=True)
        while reactor_review(self.reactor) >= 0:
            pass
        self.server.close()
        print("stopped", file=sys.stderr)


def main() -> int:
    """Read the command line and serve; return the exit code."""
    words = sys.argv[1:]
    if len(words) > 1 or not all(word.isdecimal() for word in words):
        print("usage: libreact_hello.py [PORT]", file=sys.stderr)
        return 1
    try:
        Hello(int(words[0]) if words else 3000).run()
    except OSError as error:
        print(f"libreact_hello.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
