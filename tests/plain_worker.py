"""A worker for tests of the master: it answers lines from one selector, without a hub."""

from __future__ import annotations

import os
import selectors
import signal
import socket
from typing import Any

from pycoronet.server._arrivals import stop_arrivals
from pycoronet.server._worker import CANCEL, DRAIN, Worker


class PlainWorker:
    """Serves as `Master`'s run_worker should: each line is answered with "PID LINE".

    A client may send many lines. What it has sent is answered before its connection is
    closed, and a connection is closed when the worker leaves and it says nothing.
    """

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.selector = selectors.DefaultSelector()
        self.conns: set[socket.socket] = set()
        self.is_leaving = False

    def run(self) -> None:
        signal.signal(signal.SIGTERM, lambda *_: None)
        reader, writer = socket.socketpair()
        for end in (reader, writer):
            end.setblocking(False)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        self.selector.register(reader, selectors.EVENT_READ, self.on_signal)
        self.selector.register(self.worker.link, selectors.EVENT_READ, self.on_link)
        for sock in self.worker.sockets:
            sock.setblocking(False)
            self.selector.register(sock, selectors.EVENT_READ, self.accept)
        self.worker.notify_ready()
        while self.conns or not self.is_leaving:
            for key, _ in self.selector.select():
                key.data(key.fileobj)
        signal.set_wakeup_fd(-1)
        for end in (reader, writer):
            end.close()
        self.selector.close()

    def on_signal(self, reader: socket.socket) -> None:
        if signal.SIGTERM in reader.recv(100):
            if not self.is_leaving:
                self.worker.notify_leaving()
            self.leave(takes_queue=False)

    def on_link(self, _: Any) -> None:
        commands = self.worker.take_commands()
        if self.worker.is_orphaned:
            self.selector.unregister(self.worker.link)
        for command in commands:
            if command == CANCEL:
                os._exit(0)
            self.leave(takes_queue=command == DRAIN)

    def leave(self, *, takes_queue: bool) -> None:
        if self.is_leaving:
            return
        self.is_leaving = True
        if self.worker.owns_sockets:
            for sock in self.worker.sockets:
                stop_arrivals(sock)
        for sock in self.worker.sockets:
            if takes_queue:
                while self.accept(sock):
                    pass
            self.selector.unregister(sock)
            sock.close()
        self.worker.notify_closed(were_emptied=takes_queue)
        for conn in list(self.conns):
            self.serve(conn)

    def accept(self, sock: socket.socket) -> bool:
        if sock.fileno() < 0:
            return False  # closed in the same round
        try:
            conn, _ = sock.accept()
        except BlockingIOError:
            return False
        conn.setblocking(True)
        self.conns.add(conn)
        self.selector.register(conn, selectors.EVENT_READ, self.serve)
        return True

    def serve(self, conn: socket.socket) -> None:
        if conn not in self.conns:
            return
        try:
            lines = conn.recv(65536, socket.MSG_DONTWAIT).splitlines(keepends=True)
            conn.sendall(b"".join(b"%d %s" % (os.getpid(), line) for line in lines))
            is_over = not lines
        except BlockingIOError:
            is_over = False
        except OSError:
            is_over = True
        if is_over:
            self.selector.unregister(conn)
            self.conns.remove(conn)
            conn.close()


def run_plain_worker(worker: Worker) -> None:
    PlainWorker(worker).run()
