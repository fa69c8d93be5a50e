"""What `python -m pycoronet ps` and `top` ask, in the directory that PYCORONET_INSPECT names.

A process that has a hub has a Unix socket there, with the mode 0600, and a native thread that
answers when the hubs do not. A request is a line, "ps" or "top", and the answer a line of JSON.
For whoever has said "top" the CPU time of tasks is measured until the connection ends.
"""

from __future__ import annotations

import atexit
import errno
import os
import selectors
import socket
import stat
import sys
import threading
import time
import traceback
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

from ._coronet import Hub, _count_idle_thread, _list_hubs, _report
from ._waits import Owners, Row, Wait, describe_wait, find_circles, list_tasks

__all__ = ["VARIABLE", "socket_path", "start", "stop", "take_snapshot"]

VARIABLE = "PYCORONET_INSPECT"

MAX_CLIENTS = 8  # one more, and the one that was silent for longest has to go
MAX_REQUEST_BYTES = 16
SHORTAGE_SECONDS = 0.1  # until it is tried again to accept
STOP_SECONDS = 1.0  # for the thread, at exit: some repr() may hang


# Snapshots


def _describe_wait(wait: Wait, owners: Owners) -> str:
    try:
        return describe_wait(wait, owners)
    except Exception as error:  # of somebody's __repr__
        return f"{wait.operation} <{type(wait.subject).__name__}: {type(error).__name__}>"


def _describe_row(row: Row, owners: Owners, holder: object) -> dict[str, Any]:
    waits = [
        {"for": _describe_wait(wait, owners), "seconds": wait.seconds, "left": wait.left}
        for wait in row.waits
    ]
    return {
        "id": id(row.task),
        "name": row.task.name,
        "state": "running" if row.task is holder else row.state,
        "switches": row.switches,
        "cpu": row.cpu_seconds,
        "waits": waits,
    }


def _describe_hub(hub: Hub, rows: list[Row], owners: Owners, thread: str) -> dict[str, Any]:
    # Nobody runs while the hub waits for events.
    is_busy = hub._progress() is not None
    frame = sys._current_frames().get(hub._thread_id) if is_busy else None
    holder = hub._holder()
    return {
        "id": id(hub),
        "thread": thread,
        "engine": hub.backend,
        "switches": hub.switch_count,
        "cpu": hub._cpu_ns / 1e9,
        "holder": None if holder is None else holder.name,
        "stack": traceback.format_stack(frame) if frame is not None else [],
        "tasks": [_describe_row(row, owners, holder) for row in rows],
    }


def take_snapshot() -> dict[str, Any]:
    """Return what every task of every hub does, as JSON can have it. For any thread."""
    hubs = [(hub, list_tasks(hub)) for hub in _list_hubs()]
    owners = Owners(hubs)
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return {
        "pid": os.getpid(),
        "hubs": [
            _describe_hub(hub, rows, owners, names.get(hub._thread_id, "a thread"))
            for hub, rows in hubs
        ],
        "circles": find_circles([row for _, rows in hubs for row in rows], owners),
    }


# The socket


def socket_path(directory: str, pid: int) -> Path:
    """Return where a process is asked."""
    return Path(directory) / f"{pid}.sock"


def _check_directory(directory: str) -> None:
    """Raise PermissionError for a directory that others could put something in."""
    info = Path(directory).stat()
    problem = None
    if not stat.S_ISDIR(info.st_mode):
        problem = "is no directory"
    elif info.st_uid != os.geteuid():
        problem = "belongs to somebody else"
    elif info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        problem = "can be written to by others"
    if problem is not None:
        raise PermissionError(errno.EPERM, f"{VARIABLE}: the path {problem}", directory)


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        return probe.connect_ex(str(path)) not in (errno.ECONNREFUSED, errno.ENOENT)


def _remove_stale(directory: str) -> None:
    """Remove the sockets of processes that have ended without doing so."""
    for path in Path(directory).glob("*.sock"):
        with suppress(OSError, ValueError):
            pid = int(path.stem)
            is_idle = pid == os.getpid() or _has_ended(pid)
            if is_idle and stat.S_ISSOCK(path.lstat().st_mode) and not _is_served(path):
                path.unlink()


def _has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # not reached: another user's process
        pass
    return False


def _listen(directory: str) -> tuple[socket.socket, Path]:
    _check_directory(directory)
    _remove_stale(directory)
    path = socket_path(directory, os.getpid())
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(path))
        # Nobody can connect before listen().
        path.chmod(0o600)
        listener.listen()
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        text = error.strerror or str(error)
        raise OSError(error.errno or errno.EINVAL, f"{VARIABLE}: {text}", str(path)) from None
    return listener, path


class _Client:
    """Somebody who asks."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.request = b""
        self.answer = memoryview(b"")  # what is left of it
        self.is_last = False  # nothing is asked after it
        self._measured: weakref.WeakSet[Hub] = weakref.WeakSet()

    def receive(self) -> None:
        """Take what was asked. Raises OSError; EOFError at the end."""
        data = self.sock.recv(MAX_REQUEST_BYTES)
        if not data:
            raise EOFError
        self.request += data
        line, end, rest = self.request.partition(b"\n")
        if end:
            self.request = rest
            self._reply(line)
        elif len(line) >= MAX_REQUEST_BYTES:
            self._reply(line)

    def _reply(self, request: bytes) -> None:
        import json  # a program that nobody looks at does without

        answer: dict[str, Any]
        if request in (b"ps", b"top"):
            if request == b"top":
                self._measure()
            answer = take_snapshot()
        else:
            self.is_last = True
            answer = {"error": "a request is ps or top"}
        self.answer = memoryview(json.dumps(answer).encode() + b"\n")

    def _measure(self) -> None:
        for hub in _list_hubs():
            if hub not in self._measured:
                hub._measure_cpu(True)
                self._measured.add(hub)

    def send(self) -> None:
        """Send what can be sent. Raises OSError; EOFError when nothing more is to come."""
        self.answer = self.answer[self.sock.send(self.answer) :]
        if not self.answer and self.is_last:
            raise EOFError

    def close(self) -> None:
        """End the connection, and what is measured for it."""
        self.sock.close()
        for hub in self._measured:
            hub._measure_cpu(False)


class _Service:
    """The socket, and the thread that serves it."""

    def __init__(self, directory: str) -> None:
        self._listener, self._path = _listen(directory)
        self._bell, self._ringer = socket.socketpair()  # closed to end the thread
        self._clients: dict[int, _Client] = {}  # by descriptor, the longest silent first
        self._thread = threading.Thread(target=self._run, name="pycoronet ps", daemon=True)
        try:
            self._thread.start()
        except BaseException:  # not reached: no more threads
            self.forget()
            self._path.unlink()
            raise
        _count_idle_thread(1)  # it wakes nobody: no reason for a hub to go on waiting

    def stop(self) -> None:
        """End the thread and remove the socket."""
        self._ringer.close()
        self._thread.join(STOP_SECONDS)
        self._path.unlink(missing_ok=True)
        if not self._thread.is_alive():
            _count_idle_thread(-1)

    def forget(self) -> None:
        """Close what is open: in the end, or for a child, which has no thread."""
        for client in self._clients.values():
            client.sock.close()  # not reached: a child that forks while it is asked
        for sock in (self._listener, self._bell, self._ringer):
            sock.close()

    # In the thread.

    def _run(self) -> None:
        try:
            # Not epoll: a child that closes its descriptors has to leave the parent's alone.
            with selectors.PollSelector() as selector:
                selector.register(self._listener, selectors.EVENT_READ)
                selector.register(self._bell, selectors.EVENT_READ)
                while self._serve(selector):
                    pass
        except BaseException as error:  # not reached: whatever it is, the thread has to end
            _report(error, None)
        finally:
            for client in self._clients.values():
                client.close()
            self._listener.close()
            self._bell.close()

    def _serve(self, selector: selectors.BaseSelector) -> bool:
        for key, events in selector.select():
            if key.fileobj is self._bell:
                return False
            if key.fileobj is self._listener:
                self._accept(selector)
            elif key.fd in self._clients:
                self._go_on(selector, self._clients[key.fd], events)
        return True

    def _accept(self, selector: selectors.BaseSelector) -> None:
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):  # not reached: a client that leaves at once
            return  # it has gone again
        except OSError:
            # not reached: no more descriptors
            time.sleep(SHORTAGE_SECONDS)  # no descriptor is left
            return
        sock.setblocking(False)
        if len(self._clients) >= MAX_CLIENTS:
            self._drop(selector, next(iter(self._clients.values())))
        self._clients[sock.fileno()] = _Client(sock)
        selector.register(sock, selectors.EVENT_READ)

    def _go_on(self, selector: selectors.BaseSelector, client: _Client, events: int) -> None:
        fd = client.sock.fileno()
        self._clients[fd] = self._clients.pop(fd)
        try:
            if events & selectors.EVENT_READ:
                client.receive()
            if client.answer:
                client.send()
        except BlockingIOError:
            pass  # not reached: more than a socket takes
        except (OSError, EOFError):
            self._drop(selector, client)
            return
        except Exception as error:  # not reached: a defect of ours
            _report(error, None)
            self._drop(selector, client)
            return
        wanted = selectors.EVENT_WRITE if client.answer else selectors.EVENT_READ
        selector.modify(client.sock, wanted)

    def _drop(self, selector: selectors.BaseSelector, client: _Client) -> None:
        del self._clients[client.sock.fileno()]
        selector.unregister(client.sock)
        client.close()


_lock = threading.Lock()  # guards what follows
_service: _Service | None = None
_is_tried = False  # once a process: a failure is reported once


def start() -> None:
    """Begin to serve, if PYCORONET_INSPECT asks for it. OSError: it cannot be done."""
    global _service, _is_tried
    directory = os.environ.get(VARIABLE)
    with _lock:
        if directory and not _is_tried:
            _is_tried = True
            _service = _Service(directory)


def stop() -> None:
    """End it, for good: the process is about to end."""
    global _service
    with _lock:
        service, _service = _service, None
    if service is not None:
        service.stop()


def _forget_thread() -> None:
    """After a fork the child has no thread, and the socket is the parent's."""
    global _lock, _service, _is_tried
    _lock = threading.Lock()
    if _service is not None:
        _service.forget()
        _count_idle_thread(-1)
    _service = None
    _is_tried = False


atexit.register(stop)
os.register_at_fork(after_in_child=_forget_thread)
